"""Flow matching with straight paths (conditional optimal transport) on CIFAR-10, the paper's U-Net of width 256.

The paper's table: 256 channels times (1, 2, 2, 2), depth 2, four heads of attention at 16x16, no dropout, batches of
256, warm-up over 45k steps and polynomial (here linear) decay of the learning rate, Dormand-Prince at 1e-5 (here
Tsitouras). It has no official code: flips, the average of the weights, and times that are evenly spread in a batch are
choices made here. `data.validation` is taken out of the training part.

Paper: Lipman et al. (2023), arXiv:2210.02747
Run: python main.py --config=configs/flow_matching_cifar10.py
Slice: v5e:4x4
Expect: 2.99 bits/dim (test), FID 6.35 (training part), both from the paper, unverified here; not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 256
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="flow_matching", path="linear", latent_noise=0.0, coupling="independent")
    c.model.update(width=256, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), heads=4, dropout=0.0)
    c.model.update(memory="store", sampler="probability_flow", sampler_steps=36, guidance=0.0, spacing="linear")
    c.model.update(likelihood="ode", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 5e-4
    c.optimizer.warmup_steps = 45_000
    c.optimizer.schedule = "linear"
    c.optimizer.final_scale = 2e-5
    c.train.num_steps = 391_000
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9999
    c.eval.select = "last"
    c.sample.every = 50_000
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        tiny = {"width": 4, "multipliers": (1,), "blocks": 1, "attention": (8,), "heads": 1}
        common.debug(c, "synthetic:8x8x3", sampler_steps=3, rtol=1e-2, atol=1e-2, **tiny)
    return c
