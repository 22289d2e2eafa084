"""Improved DDPM on CIFAR-10: a cosine schedule of 4,000 steps, learned variances, the hybrid loss.

Protocol of the official code: three residual blocks at each resolution, four heads of attention at 16x16 and 8x8, scale
and shift by the embedded time, dropout 0.3, Adam, no clipping of gradients, no flips, average of the weights with decay
0.9999. Images are clipped to [-1, 1] there wherever the network expects them, in samples and in the bound, which is not
done here. Sheets take 250 of the 4,000 steps; the figures are of all (--config.model.sampler_steps=4000).

--config.model.objective=vlb --config.model.importance_times=true is the paper's model of the bound: 2.94 bits/dim.

Paper: Nichol and Dhariwal (2021), arXiv:2102.09672, tables 1 and 2
Run: python main.py --config=configs/iddpm_cifar10.py
Slice: v5e:4x4
Expect: 3.17 bits/dim (test), FID 3.19, both from the paper, unverified here; not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.02
    c.model.update(name="ddpm", num_steps=4000, schedule="cosine", prediction="noise", objective="hybrid")
    c.model.update(variance="learned", importance_times=False, width=128, multipliers=(1, 2, 2, 2), blocks=3)
    c.model.update(attention=(16, 8), heads=4, dropout=0.3, scale_shift=True, memory="store")
    c.model.update(sampler="ancestral", sampler_steps=250, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 1e-4
    c.train.num_steps = 500_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9999
    c.eval.every = 20_000
    c.eval.select = "last"
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", width=4, multipliers=(1, 2), blocks=1, attention=(4,), heads=2)
        c.model.update(num_steps=8, sampler_steps=4)
    return c
