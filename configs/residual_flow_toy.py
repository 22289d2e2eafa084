"""Residual flow on a 2-D density whose entropy is known: moons, rings, checkerboard, eight_gaussians, ...

The log-determinant is exact, of the full 2 x 2 Jacobian, in training and in evaluation. The paper's toy model has 100
blocks of wider networks; this one is small enough for a CPU.

Paper: Chen et al. (2019), arXiv:1906.02735, section 5.1
Run: python main.py --config=configs/residual_flow_toy.py --config.data.name=moons
Slice: cpu:1
Expect: within 0.1 nats of the entropy of the data (test, moons; no published figure); ten minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "moons"
    c.data.batch_size = 512
    c.model.update(
        name="residual_mlp_flow", depth=16, widths=(64, 64), coefficient=0.98, memory="remat", conditional=False
    )
    c.optimizer.learning_rate = 2e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 3_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.eval.every = 1_000
    c.eval.batch_size = 2_000
    if common.is_debug(arg):
        common.debug(c, depth=2, widths=(8,))
    return c
