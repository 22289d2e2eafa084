"""NVAE on CIFAR-10: 30 groups of latents at 16x16, 20 channels each, autoregressive flows in the posterior.

Sizes, batch (8 x 32), 400 epochs, flips, mixture of ten logistics as in the official code. Deviations: as
configs/nvae_mnist.py; memory='remat' keeps what enters a group, and a cell outside the groups.

The final score passes the decoder 1,000 times for each of 10,000 images, as often as 200 epochs do:
--config.eval.importance_samples=1 is the ELBO alone.

Paper: Vahdat and Kautz (2020), arXiv:2007.03898, table 1
Run: python main.py --config=configs/nvae_cifar10.py
Slice: v5e:4x4
Expect: 2.91 bits/dim (test, from the official README, unverified here); not run; 55 hours on eight V100 there
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 256
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="nvae", width=128, groups=(30,), channels=20, cells=2, blocks=1, block_cells=2, flows=1)
    c.model.update(likelihood="mixture", min_log_scale=-7.0, memory="remat", spectral=1e-2)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=5_880_000, balance=True)  # 120 epochs
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-2
    c.optimizer.eps = 1e-3
    c.optimizer.weight_decay = 3e-4
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 957  # 5 epochs
    c.train.num_steps = 76_562  # 400 epochs
    c.train.log_every = 500
    c.eval.every = 5_000
    c.eval.select = "last"
    c.eval.importance_samples = 1_000
    c.eval.samples_per_call = 2
    c.checkpoint.every = 1_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", width=2, groups=(2,), channels=2, cells=1, blocks=1, block_cells=1)
        c.model.kl_warmup = 64
    return c
