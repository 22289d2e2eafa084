"""DDPM on MNIST: a U-Net of 28x28, 14x14 and 7x7 pixels with attention at 14x14.

The paper has no MNIST; schedule, loss, variance and optimizer are those of configs/ddpm_cifar10.py.

Paper: Ho et al. (2020), arXiv:2006.11239
Run: python main.py --config=configs/ddpm_mnist.py
Slice: v5e:2x2
Expect: bits/dim (test, a bound, no published figure); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 128
    c.model.update(name="ddpm", num_steps=1000, schedule="linear", prediction="noise", objective="simple")
    c.model.update(variance="large", importance_times=False)
    c.model.update(width=64, multipliers=(1, 2, 2), blocks=2, attention=(14,), heads=1, dropout=0.1, scale_shift=False)
    c.model.update(memory="store", sampler="ancestral", sampler_steps=1000, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.clip_norm = 1.0
    c.optimizer.warmup_steps = 1_000
    c.train.num_steps = 40_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 10_000
    c.eval.select = "last"
    c.sample.temperatures = (0.7, 1.0)
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x1", width=4, multipliers=(1, 2), blocks=1, attention=(4,))
        c.model.update(num_steps=8, sampler_steps=4)
    return c
