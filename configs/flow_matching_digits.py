"""Flow matching with straight paths on the handwritten digits of scikit-learn: 8x8 pixels, 17 gray levels.

The paper's method at a small size. Likelihoods are of uniformly dequantized images, by the probability-flow equation
with one Rademacher probe.

Paper: Lipman et al. (2023), arXiv:2210.02747
Run: python main.py --config=configs/flow_matching_digits.py
Slice: cpu:1
Expect: bits/dim (test, an estimate, no published figure); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="flow_matching", path="linear", latent_noise=0.0, coupling="independent")
    c.model.update(width=32, multipliers=(1, 2), blocks=1, attention=(4,), heads=1, dropout=0.0, memory="store")
    c.model.update(sampler="heun", sampler_steps=20, guidance=0.0, spacing="linear")
    c.model.update(likelihood="ode", rtol=1e-3, atol=1e-3, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.clip_norm = 1.0
    c.optimizer.warmup_steps = 100
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 1_000
    c.train.ema_decay = 0.995
    c.eval.batch_size = 180
    c.eval.select = "last"
    c.sample.temperatures = (0.0, 0.7, 1.0)
    if common.is_debug(arg):
        common.debug(c, width=4, multipliers=(1,), attention=(8,), sampler_steps=3, rtol=1e-2, atol=1e-2)
    return c
