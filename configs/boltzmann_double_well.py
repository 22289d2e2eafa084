"""Boltzmann generator of the double well: examples give it the shape of each well, the energy gives their weights.

The training part is short trajectories, half of them started in each well, so it shows two wells of one weight; the
deeper one holds 99.2 %. The test part is drawn from the density itself. The architecture is ours, the potential and
the two losses are the paper's, whose weights it schedules and we keep.

Paper: Noé et al. (2019), arXiv:1812.01729
Run: python main.py --config=configs/boltzmann_double_well.py
Slice: cpu:1
Expect: within 0.3 nats of the entropy of the target (test draws); two minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "trajectories:double_well"
    c.data.batch_size = 256
    c.model.update(
        name="boltzmann",
        target="double_well",
        depth=8,
        widths=(64, 64),
        forward_weight=1.0,
        reverse_weight=1.0,
        coupling="affine",
        energy_cap=1e4,
    )
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 10.0
    c.train.num_steps = 3_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.eval.every = 500
    c.eval.batch_size = 2_500
    c.eval.select = "last"  # the lowest likelihood is not the aim
    if common.is_debug(arg):
        common.debug(c, depth=1, widths=(8,))
    return c
