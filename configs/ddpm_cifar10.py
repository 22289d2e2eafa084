"""DDPM on CIFAR-10, the paper's model: U-Net of width 128 with attention at 16x16, 1,000 steps, simple loss.

Protocol of the official code: steps drawn uniformly (here, those of a batch evenly spread), noise predicted, variances
beta ('fixedlarge'), Adam, warm-up over 5,000 steps, flips, average of the weights with decay 0.9999. There, gradients
are clipped to 1 over the number of TPU cores; images are clipped to [-1, 1] wherever the network expects them, in
samples and in the bound, which is not done here. `data.validation` is taken out of the training part.

Paper: Ho et al. (2020), arXiv:2006.11239, tables 1 and 2
Run: python main.py --config=configs/ddpm_cifar10.py
Slice: v5e:4x4
Expect: 3.75 bits/dim or less (test), FID 3.17 (training part), both from the paper, unverified here; not run
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
    c.model.update(sampler="ancestral", sampler_steps=1000, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
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
        common.debug(c, "synthetic:8x8x3", width=4, multipliers=(1, 2), blocks=1, attention=(4,))
        c.model.update(num_steps=8, sampler_steps=4)
    return c
