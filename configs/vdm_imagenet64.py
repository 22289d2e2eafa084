"""Variational diffusion on 64x64 ImageNet: 64 blocks of width 256 at full resolution, Fourier features.

Protocol as configs/vdm_cifar10.py; memory='remat' keeps what enters a block. The data set is tensorflow_datasets'
downsampled_imagenet; its official validation part is the test.

Paper: Kingma et al. (2021), arXiv:2107.00630, table 1
Run: python main.py --config=configs/vdm_imagenet64.py
Slice: v5e:8x8
Expect: 3.40 bits/dim (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "downsampled_imagenet/64x64"
    c.data.batch_size = 128
    c.data.validation = 0.002
    c.model.update(name="vdm", schedule="linear", gamma_min=-13.3, gamma_max=5.0, num_steps=0)
    c.model.update(fourier_periods=(2.0, 1.0), width=256, blocks=64, dropout=0.1, attention_everywhere=False)
    c.model.update(memory="remat", sampler="ancestral_small", sampler_steps=1000, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b2 = 0.99
    c.optimizer.weight_decay = 0.01
    c.optimizer.warmup_steps = 100
    c.train.num_steps = 10_000_000
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9999
    c.eval.every = 20_000
    c.eval.max_examples = 10_000
    c.eval.select = "last"
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", width=4, blocks=1, sampler_steps=4)
    return c
