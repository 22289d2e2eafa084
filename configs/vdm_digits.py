"""Variational diffusion on the handwritten digits that scikit-learn ships: 8x8 pixels, 17 gray levels, 1,797 images.

The paper's method at a small size: continuous time, the monotone network for gamma, Fourier features, 3 blocks of width
32. At gamma = -8 the noise's deviation is a seventh of a bin; at the paper's -13.3 and 256 gray levels it is a sixth.

Paper: Kingma et al. (2021), arXiv:2107.00630
Run: python main.py --config=configs/vdm_digits.py
Slice: cpu:1
Expect: at most 1.831 bits/dim (test, a bound, no published figure); seven minutes on 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 64
    c.model.update(name="vdm", schedule="monotone", gamma_min=-8.0, gamma_max=5.0, num_steps=0)
    c.model.update(fourier_periods=(2.0, 1.0), width=32, blocks=3, dropout=0.0, attention_everywhere=False)
    c.model.update(memory="store", sampler="ancestral_small", sampler_steps=200, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.b2 = 0.99
    c.optimizer.weight_decay = 0.01
    c.optimizer.warmup_steps = 100
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 1_500
    c.train.ema_decay = 0.995
    c.eval.every = 500
    c.eval.num_repeats = 20
    c.eval.select = "last"
    c.sample.temperatures = (0.0, 0.7, 1.0)
    if common.is_debug(arg):
        common.debug(c, width=4, blocks=1, sampler_steps=4)
    return c
