"""Glow on CelebA-HQ at 256x256 and 5 bits, the paper's model: 6 levels of 32 steps, additive couplings.

Optimizer as configs/glow_cifar10.py; the official code trains 1 image on each of 40 devices. Images are flipped.
memory='invert' keeps the activations of one step, whatever the depth. There is no official split: a validation and a
test part are held out.

Paper: Kingma and Dhariwal (2018), arXiv:1807.03039, table 2
Run: python main.py --config=configs/glow_celebahq256.py
Slice: v5e:2x4
Expect: 1.03 bits/dim (validation, 5-bit data, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "celeb_a_hq/256"
    c.data.batch_size = 40
    c.data.bits = 5
    c.data.augment = "flip"
    c.model.update(name="glow", levels=6, depth=32, width=512, coupling="additive", memory="invert")
    c.model.update(gaussianize=False, conditional=False)
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 1 - 40 / 50_000
    c.optimizer.warmup_steps = 12_500  # 10 epochs of 50,000
    c.train.num_steps = 1_500_000
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
