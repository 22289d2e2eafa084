"""Boltzmann generator of three Lennard-Jones particles on the plane, in a harmonic trap.

Examples come from long Metropolis chains, as the cluster is small enough for them. It stands for the paper's larger
systems: a bistable dimer in a Lennard-Jones-like bath and a protein. Particles are not sorted and the flow knows no
symmetry, so that it has to find all six orders of them.

Paper: Noé et al. (2019), arXiv:1812.01729
Run: python main.py --config=configs/boltzmann_lennard_jones.py
Slice: cpu:1
Expect: within 1.0 nats of the entropy of the cluster (test draws); three minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "target:lennard_jones"
    c.data.batch_size = 256
    c.model.update(
        name="boltzmann",
        target="lennard_jones",
        depth=5,
        widths=(64, 64),
        forward_weight=1.0,
        reverse_weight=1.0,
        coupling="spline",
        energy_cap=20.0,  # nats; a pair of particles on top of each other has 693
    )
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 10.0
    c.train.num_steps = 4_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.eval.every = 500
    c.eval.batch_size = 2_500
    c.eval.select = "last"  # the lowest likelihood is not the aim
    if common.is_debug(arg):
        common.debug(c, depth=1, widths=(8,))
    return c
