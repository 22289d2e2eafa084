"""The sub-VP SDE on CIFAR-10 with DDPM++ cont. (deep): the score model with the best likelihood.

Images are flipped, the loss is a mean over dimensions, gradients are clipped at 1, the average of the weights is used.
Likelihoods are of five uniformly dequantized copies of each test image, by the probability-flow equation with one
Rademacher probe and tolerances 1e-5, from t = 1e-5. Times of a batch are evenly spread, not independent.

Paper: Song et al. (2021), arXiv:2011.13456, table 2
Run: python main.py --config=configs/score_sde_cifar10.py
Slice: v5e:4x4
Expect: 2.99 bits/dim (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="score_sde", sde="sub_vp", weighting="sigma")
    c.model.update(width=128, multipliers=(1, 2, 2, 2), blocks=8, attention=(16,), heads=1, dropout=0.1)
    c.model.update(memory="store", sampler="reverse_sde", sampler_steps=1000, guidance=0.0, spacing="linear")
    c.model.update(likelihood="ode", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.warmup_steps = 5_000
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 950_000
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9999
    c.eval.num_repeats = 5
    c.eval.select = "last"
    c.sample.every = 50_000
    c.checkpoint.every = 10_000
    c.sample.temperatures = (1.0,)
    if common.is_debug(arg):
        tiny = {"width": 4, "multipliers": (1,), "blocks": 1, "attention": (4,)}
        common.debug(c, "synthetic:4x4x3", sampler_steps=3, rtol=1e-2, atol=1e-2, **tiny)
    return c
