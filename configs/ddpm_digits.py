"""DDPM on the handwritten digits that scikit-learn ships: 8x8 pixels, 17 gray levels, 1,797 images.

The paper's method at a small size: a linear schedule with as much noise in all in 100 steps, noise predicted, the
simple loss, attention where the image is 4x4. The bound is dear where the noise is less than a gray level: a network of
this size does not see there what it could see, that pixels are whole numbers of levels.

Paper: Ho et al. (2020), arXiv:2006.11239
Run: python main.py --config=configs/ddpm_digits.py
Slice: cpu:1
Expect: at most 2.446 bits/dim (test, a bound, no published figure); six minutes on 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 64
    c.model.update(name="ddpm", num_steps=100, schedule="linear", prediction="noise", objective="simple")
    c.model.update(variance="large", importance_times=False)
    c.model.update(width=32, multipliers=(1, 2), blocks=1, attention=(4,), heads=1, dropout=0.0, scale_shift=False)
    c.model.update(memory="store", sampler="ancestral", sampler_steps=100, guidance=0.0, spacing="linear")
    c.model.update(likelihood="bound", rtol=1e-4, atol=1e-4, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.clip_norm = 1.0
    c.optimizer.warmup_steps = 100
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 2_000
    c.train.ema_decay = 0.995
    c.train.steps_per_call = 20
    c.eval.every = 1_000
    c.eval.num_repeats = 20
    c.eval.select = "last"
    c.sample.temperatures = (0.0, 0.7, 1.0)
    if common.is_debug(arg):
        loose = {"rtol": 1e-2, "atol": 1e-2}
        common.debug(c, width=4, multipliers=(1,), attention=(8,), num_steps=8, sampler_steps=4, **loose)
    return c
