"""DDPM on CelebA-HQ at 256x256, the paper's model: six resolutions of width 128 to 512 with attention at 16x16.

Schedule, loss and variance as configs/ddpm_cifar10.py; no dropout, a tenth of its learning rate, batches of 64, 500,000
steps, flips. memory='remat' keeps what enters a residual block. There is no official split: a validation and a test
part are held out.

Paper: Ho et al. (2020), arXiv:2006.11239, appendix B
Run: python main.py --config=configs/ddpm_celebahq256.py
Slice: v5e:8x8
Expect: bits/dim (test, a bound, no published figure); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "celeb_a_hq/256"
    c.data.batch_size = 64
    c.data.augment = "flip"
    c.model.update(name="ddpm", num_steps=1000, schedule="linear", prediction="noise", objective="simple")
    c.model.update(variance="large", importance_times=False, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2)
    c.model.update(attention=(16,), heads=1, dropout=0.0, scale_shift=False, memory="remat")
    c.model.update(sampler="ancestral", sampler_steps=1000, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-5
    c.optimizer.clip_norm = 1.0
    c.optimizer.warmup_steps = 5_000
    c.train.num_steps = 500_000
    c.train.log_every = 500
    c.train.ema_decay = 0.9999
    c.eval.every = 20_000
    c.eval.batch_size = 64
    c.eval.max_examples = 3_000
    c.eval.select = "last"
    c.sample.num = 16
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", width=4, multipliers=(1, 2), blocks=1, attention=(4,))
        c.model.update(num_steps=8, sampler_steps=4)
    return c
