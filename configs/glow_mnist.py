"""Glow on MNIST, 28x28, uniform dequantization: two levels, since 28 halves twice.

Paper: Kingma and Dhariwal (2018), arXiv:1807.03039 (gives no MNIST figure)
Run: python main.py --config=configs/glow_mnist.py
Slice: v5e:2x2
Expect: 1.05 bits/dim (test; Glow's MNIST figure in Chen et al. 2019, arXiv:1906.02735, table 1, from memory); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 256
    c.model.update(name="glow", levels=2, depth=32, width=256, coupling="affine", memory="store", gaussianize=False)
    c.model.conditional = False
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 1_950  # 10 epochs of 50,000
    c.train.num_steps = 50_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.eval.every = 5_000
    c.sample.every = 10_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x1", levels=1, depth=2, width=8)
    return c
