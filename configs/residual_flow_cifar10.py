"""Residual flow on CIFAR-10, the paper's model: 3 scales of 16 blocks of 512 channels, nothing factored out.

Protocol of the official code: Adam (0.9, 0.99), warm-up over 1,000 steps, batch 64, gradients clipped at norm 1, 1,000
epochs, evaluation with the average of the parameters (decay 0.999), logit with alpha 0.05, random flips. Training draws
2 + Poisson(2) terms of the log-det, evaluation sums 20. Ours: power iteration starts anew each time, one fully
connected block of 128 at the end of each scale (how many the paper had was not checked), the checkpoint is chosen on
`data.validation`, taken out of the training part.

Paper: Chen et al. (2019), arXiv:1906.02735, table 2
Run: python main.py --config=configs/residual_flow_cifar10.py
Slice: v5e:4x4
Expect: 3.280 bits/dim (test, from the paper, unverified here); not run; days on an accelerator
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 64
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(
        name="residual_flow",
        levels=3,
        depth=16,
        width=512,
        dense_width=128,
        coefficient=0.98,
        alpha=0.05,
        memory="remat",
        conditional=False,
    )
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 0.99
    c.optimizer.warmup_steps = 1_000
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 766_000  # 1,000 epochs
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.999
    c.eval.every = 10_000
    c.sample.every = 20_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", levels=1, depth=1, width=4, dense_width=0)
    return c
