"""Glow on the handwritten digits that scikit-learn ships: 8x8 pixels, 17 gray levels, 1,797 images.

Paper: Kingma and Dhariwal (2018), arXiv:1807.03039
Run: python main.py --config=configs/glow_digits.py
Slice: cpu:1
Expect: 1.89 +- 0.02 bits/dim (test, no published figure); two minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="glow", levels=2, depth=6, width=48, coupling="affine", memory="store", gaussianize=True)
    c.model.conditional = False
    c.optimizer.learning_rate = 2e-3
    c.optimizer.weight_decay = 10.0
    c.optimizer.warmup_steps = 100
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 1_750
    c.train.ema_decay = 0.995
    c.eval.every = 250
    if common.is_debug(arg):
        common.debug(c, levels=1, depth=2, width=8)
    return c
