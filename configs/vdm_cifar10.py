"""Variational diffusion on CIFAR-10, the paper's model: 32 blocks of width 128 at full resolution, Fourier features.

Protocol of the official code, without augmentation: gamma a straight line between learned ends that start at -13.3 and
5, continuous time, AdamW, dropout 0.1, average of the weights with decay 0.9999. There, weights decay but for biases,
here those of convolutions and dense layers alone; data are scaled to bins of 2 / 256, here of 2 / 255.
`data.validation` is taken out of the training part.

Paper: Kingma et al. (2021), arXiv:2107.00630, table 1
Run: python main.py --config=configs/vdm_cifar10.py
Slice: v5e:8x8
Expect: 2.65 bits/dim (test, from the paper, unverified here; 2.637 in the official README); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.02
    c.model.update(name="vdm", schedule="linear", gamma_min=-13.3, gamma_max=5.0, num_steps=0)
    c.model.update(fourier_periods=(2.0, 1.0), width=128, blocks=32, dropout=0.1, attention_everywhere=False)
    c.model.update(memory="store", sampler="ancestral_small", sampler_steps=1000, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b2 = 0.99
    c.optimizer.weight_decay = 0.01
    c.optimizer.warmup_steps = 100
    c.train.num_steps = 10_000_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9999
    c.eval.every = 20_000
    c.eval.select = "last"
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", width=4, blocks=1, sampler_steps=4)
    return c
