"""Glow on 64x64 ImageNet, the paper's model: 4 levels of 48 steps, width 512, affine couplings, 8 bits.

Optimizer as configs/glow_cifar10.py, 16 images a step on each of 8 devices, no augmentation. The data set is
tensorflow_datasets' downsampled_imagenet; its official validation part is the test.

Paper: Kingma and Dhariwal (2018), arXiv:1807.03039, table 2
Run: python main.py --config=configs/glow_imagenet64.py
Slice: v5e:8x8
Expect: 3.81 bits/dim (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "downsampled_imagenet/64x64"
    c.data.batch_size = 128
    c.data.validation = 0.002
    c.model.update(name="glow", levels=4, depth=48, width=512, coupling="affine", memory="remat")
    c.model.update(gaussianize=False, conditional=False)
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 1 - 128 / 50_000
    c.optimizer.warmup_steps = 3_906  # 10 epochs of 50,000
    c.train.num_steps = 1_000_000
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.eval.every = 10_000
    c.eval.max_examples = 10_000
    c.sample.every = 10_000
    c.sample.temperatures = (0.0, 0.25, 0.6, 0.7, 0.8, 0.9, 1.0)
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", levels=1, depth=2, width=8)
    return c
