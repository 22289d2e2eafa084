"""Affine coupling flow on a 2-D density whose entropy is known: moons, rings, checkerboard, eight_gaussians, ...

Paper: Dinh et al. (2017), arXiv:1605.08803
Run: python main.py --config=configs/realnvp_toy.py --config.data.name=moons
Slice: cpu:1
Expect: within 0.1 nats of the entropy of the data (test); one minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "moons"
    c.data.batch_size = 512
    c.model.update(name="coupling_flow", depth=16, widths=(64, 64), memory="store", conditional=False)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 4_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.eval.every = 1_000
    c.eval.batch_size = 2_000
    if common.is_debug(arg):
        common.debug(c, depth=2, widths=(8,))
    return c
