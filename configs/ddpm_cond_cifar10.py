"""DDPM on CIFAR-10 given the class, with classifier-free guidance: one network is the model with and without a class.

The model and its training are those of configs/ddpm_cifar10.py; one example in ten loses its class. Samples are drawn
with guidance, eps = (1 + w) eps(z, c) - w eps(z); the bound is that of the model given the class, without guidance.

Paper: Ho and Salimans (2022), Classifier-free diffusion guidance, arXiv:2207.12598
Run: python main.py --config=configs/ddpm_cond_cifar10.py
Slice: v5e:4x4
Expect: bits/dim given the class (test, a bound, no published figure); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="ddpm", num_steps=1000, schedule="linear", prediction="noise", objective="simple")
    c.model.update(variance="large", importance_times=False, width=128, multipliers=(1, 2, 2, 2), blocks=2)
    c.model.update(attention=(16,), heads=1, dropout=0.1, scale_shift=False, memory="store")
    c.model.update(sampler="ancestral", sampler_steps=1000, guidance=0.3, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=True, drop_condition=0.1)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.clip_norm = 1.0
    c.optimizer.warmup_steps = 5_000
    c.train.num_steps = 800_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9999
    c.eval.every = 20_000
    c.eval.select = "last"
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        common.debug(c, "digits", width=4, multipliers=(1,), blocks=1, attention=(8,))
        c.model.update(num_steps=8, sampler_steps=4)
    return c
