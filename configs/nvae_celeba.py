"""NVAE on CelebA, cropped to 148x148 and resized to 64x64: groups of latents 5 at 8x8, 10 at 16x16, 20 at 32x32.

The crop is that of the official code (its resizing may differ), as are sizes, batch (8 x 16), 90 epochs, flips, mixture
of ten logistics, one pair of autoregressive shifts for each group, and a spectral weight of 0.1 at this data set.
Deviations: as configs/nvae_mnist.py; memory='remat' keeps what enters a group, and a cell outside the groups.

The final score passes the decoder 1,000 times for each of 10,000 test images, as often as 60 epochs do:
--config.eval.importance_samples=1 is the ELBO alone.

Paper: Vahdat and Kautz (2020), arXiv:2007.03898, table 1
Run: python main.py --config=configs/nvae_celeba.py
Slice: v5e:4x4
Expect: 2.03 bits/dim (test, from the paper, unverified here); not run; 92 hours on eight V100 there
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "celeb_a"
    c.data.crop = (40, 15, 148, 148)
    c.data.image_size = 64
    c.data.batch_size = 128
    c.data.augment = "flip"
    c.model.update(name="nvae", width=64, groups=(5, 10, 20), channels=20, cells=2, blocks=1, block_cells=2, flows=1)
    c.model.update(likelihood="mixture", min_log_scale=-7.0, memory="remat", spectral=1e-1)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=4_394_790, balance=True)  # 27 epochs of 162,770
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-2
    c.optimizer.eps = 1e-3
    c.optimizer.weight_decay = 3e-4
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 6_358  # 5 epochs
    c.train.num_steps = 114_448  # 90 epochs
    c.train.log_every = 500
    c.eval.every = 10_000
    c.eval.select = "last"
    c.eval.max_examples = 10_000
    c.eval.importance_samples = 1_000
    c.eval.samples_per_call = 2
    c.checkpoint.every = 1_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", width=2, groups=(2,), channels=2, cells=1, blocks=1, block_cells=1)
        c.model.kl_warmup = 64
    return c
