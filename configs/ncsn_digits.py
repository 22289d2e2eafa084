"""Score network of scikit-learn's handwritten digits (8x8 pixels) at eight noise levels, drawn by Langevin dynamics.

The paper's method at a small size: a RefineNet with two stages, which says the noise instead of the score, and an
average of the weights. sigma_min = 0.06 is half a gray level.

Paper: Song and Ermon (2019), arXiv:1907.05600
Run: python main.py --config=configs/ncsn_digits.py
Slice: cpu:1
Expect: no bits/dim, as there is no likelihood, but samples to look at; five minutes on 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="ncsn", levels=8, sigma_min=0.06, sigma_max=2.0, objective="denoising", projections=1)
    c.model.update(prediction="noise", width=32, multipliers=(1, 2), dilations=(1, 1), blocks=1)
    c.model.update(sampler="annealed_langevin", sampler_steps=8, spacing="linear")
    c.optimizer.learning_rate = 2e-3
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 1_000
    c.train.ema_decay = 0.995
    c.eval.select = "last"
    c.eval.baselines = False
    c.sample.temperatures = ()
    if common.is_debug(arg):
        common.debug(c, levels=2, sampler_steps=2, width=4, multipliers=(1,), dilations=(1,))
    return c
