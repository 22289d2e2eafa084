"""FFJORD on a 2-D density whose entropy is known: moons, rings, checkerboard, eight_gaussians, ...

One continuous flow of three layers of 64 with the exact trace, as in the paper's toy experiments; ActNorm in front of
it and fewer steps are ours.

Paper: Grathwohl et al. (2019), arXiv:1810.01367, section 4.1
Run: python main.py --config=configs/ffjord_toy.py --config.data.name=moons
Slice: cpu:1
Expect: within 0.1 nats of the entropy of the data (test, expected, not measured); not run to the end
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "moons"
    c.data.batch_size = 512
    c.model.update(name="ffjord_mlp", depth=1, widths=(64, 64, 64), rtol=1e-5, atol=1e-5, conditional=False)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 2_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.eval.every = 1_000
    c.eval.batch_size = 2_000
    if common.is_debug(arg):
        common.debug(c, widths=(8,))
    return c
