"""Neural spline flow with couplings on a 2-D density whose entropy is known: checkerboard, spirals, rings, ...

Paper: Durkan et al. (2019), arXiv:1906.04032, figure 1
Run: python main.py --config=configs/nsf_toy.py --config.data.name=checkerboard
Slice: cpu:1
Expect: within 0.05 nats of the entropy of the data (test); one minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "checkerboard"
    c.data.batch_size = 512
    c.model.update(
        name="nsf",
        depth=4,
        width=64,
        blocks=2,
        bins=16,
        bound=5.0,
        dropout=0.0,
        autoregressive=False,
        memory="store",
        conditional=False,
    )
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.final_scale = 0.0
    c.optimizer.clip_norm = 5.0
    c.train.num_steps = 4_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.eval.every = 1_000
    c.eval.batch_size = 2_000
    if common.is_debug(arg):
        common.debug(c, depth=2, width=8, bins=4)
    return c
