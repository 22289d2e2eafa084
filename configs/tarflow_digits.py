"""TarFlow on the handwritten digits that scikit-learn ships: 8x8 pixels, 17 gray levels, 16 tokens of 2x2 pixels.

Paper: Zhai et al. (2024), arXiv:2412.06329
Run: python main.py --config=configs/tarflow_digits.py
Slice: cpu:1
Expect: 2.06 +- 0.01 bits/dim (test, no published figure); two minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="tarflow", patch=2, width=48, blocks=4, layers=2, heads=4)
    c.model.update(memory="store", gaussianize=True, conditional=False)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.weight_decay = 1.0
    c.optimizer.warmup_steps = 100
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 400
    c.train.ema_decay = 0.995
    c.eval.every = 200
    if common.is_debug(arg):
        common.debug(c, width=8, blocks=2, layers=1, heads=2)
    return c
