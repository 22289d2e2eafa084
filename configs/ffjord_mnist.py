"""FFJORD on MNIST, multiscale: 2 levels, 2 continuous flows before and after each squeeze, three layers of 64 channels.

Protocol of the official code: Adam, batch 200, warm-up over 1,000 steps, rtol = atol = 1e-5, Hutchinson's trace. The
alpha of the logit, the learning rate and the number of levels were not checked against it. Ours: ActNorm in front, one
solver step for the whole batch, gradients of the steps taken instead of a second equation backwards, 100 epochs.

Paper: Grathwohl et al. (2019), arXiv:1810.01367, table 2
Run: python main.py --config=configs/ffjord_mnist.py
Slice: v5e:2x2
Expect: 0.99 bits/dim (test, from the paper, unverified here); not run; days on an accelerator
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 200
    c.model.update(
        name="ffjord", levels=2, depth=2, widths=(64, 64, 64), alpha=1e-6, rtol=1e-5, atol=1e-5, conditional=False
    )
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 1_000
    c.train.num_steps = 27_000  # 100 epochs
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.eval.every = 2_700
    c.sample.every = 13_500
    c.checkpoint.every = 1_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1", levels=1, depth=1, widths=(4,))
    return c
