"""Glow on CIFAR-10, the paper's model: 3 levels of 32 steps, width 512, affine couplings, 8 bits.

Protocol of the official code: Adamax, beta2 = 1 - 1 / (steps per epoch), linear warm-up over 10 epochs of 50,000
images, 8 x 64 images a step, shifts of up to 10 % and no flips, evaluation with the raw weights. `data.validation`
is taken out of the training part to choose the checkpoint; the paper had none.

Paper: Kingma and Dhariwal (2018), arXiv:1807.03039, table 2
Run: python main.py --config=configs/glow_cifar10.py
Slice: v5e:8x8
Expect: 3.35 bits/dim (test, from the paper, unverified here); not run; about 8 GFLOP an image forward
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 512
    c.data.validation = 0.02
    c.data.augment = "shift"
    c.data.shift_pixels = 3
    c.model.update(name="glow", levels=3, depth=32, width=512, coupling="affine", memory="store", gaussianize=False)
    c.model.conditional = False
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 1 - 512 / 50_000
    c.optimizer.warmup_steps = 980  # 10 epochs
    c.train.num_steps = 293_000  # 3,000 epochs
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.eval.every = 10_000
    c.sample.every = 20_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", levels=1, depth=2, width=8)
    return c
