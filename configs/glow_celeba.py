"""Glow on CelebA, aligned faces cropped to 148x148 and resized to 64x64 as for Real NVP: 4 levels of 32 steps, 8 bits.

Optimizer as configs/glow_cifar10.py; 16 images a step on each of 8 devices, as the official code does at 64x64;
random flips, as Real NVP does on this set. The paper's own CelebA figure is for CelebA-HQ at 256x256 and 5 bits.

Paper: Kingma and Dhariwal (2018), arXiv:1807.03039
Run: python main.py --config=configs/glow_celeba.py
Slice: v5e:4x4
Expect: no published figure at this size (Real NVP: 3.02 bits/dim, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "celeb_a"
    c.data.crop = (40, 15, 148, 148)
    c.data.image_size = 64
    c.data.batch_size = 128
    c.data.augment = "flip"
    c.model.update(name="glow", levels=4, depth=32, width=512, coupling="affine", memory="remat", gaussianize=False)
    c.model.conditional = False
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 1 - 128 / 50_000
    c.optimizer.warmup_steps = 3_906  # 10 epochs of 50,000
    c.train.num_steps = 600_000
    c.train.log_every = 500
    c.eval.every = 10_000
    c.eval.max_examples = 10_000
    c.sample.every = 5_000
    c.sample.temperatures = (0.0, 0.25, 0.6, 0.7, 0.8, 0.9, 1.0)
    c.checkpoint.every = 2_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", levels=1, depth=2, width=8)
    return c
