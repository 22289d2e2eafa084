"""MADE on the embedded digits: one masked layer of 500 units and a softmax for each pixel, given all pixels before it.

Beside the Markov perceptron of `markov_digits` it knows where each pixel is, and sees all pixels before it. An ensemble
of masks and orderings: --config.model.num_masks=32 --config.model.shuffle=True and more steps.

Paper: Germain et al. (2015), arXiv:1502.03509
Run: python main.py --config=configs/made_digits.py
Slice: cpu:1
Expect: 2.311 +- 0.014 bits/dim (test, one seed, no published figure); under a minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 100
    c.model.update(name="made", widths=(500,), num_masks=1, shuffle=False, direct=True, seed=0, conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.weight_decay = 1.0
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 600
    c.train.steps_per_call = 50
    c.train.log_every = 100
    c.train.ema_decay = 0.99
    c.eval.every = 100
    c.sample.temperatures = (0.5, 0.7, 0.85, 1.0)
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", widths=(8,))
    return c
