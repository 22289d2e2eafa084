"""Reverse KL on an energy of the plane: an affine coupling flow that sees the energy and no data.

The data are only its judges: exact draws, on which the flow's likelihood is measured. Choose another energy of the
plane by setting data.name and model.target together: two_moons, wave, parting_wave, forking_wave. The paper's planar
flows are replaced by couplings, and its annealing of the energy is left out; what the reverse direction does to two
modes is in docs/two-kl-directions.md.

Paper: Rezende and Mohamed (2015), arXiv:1505.05770, section 6.1
Run: python main.py --config=configs/reverse_kl_toy.py
Slice: cpu:1
Expect: within 0.1 nats of the entropy of the target (test draws); two minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "target:two_moons"
    c.data.batch_size = 256
    c.model.update(
        name="boltzmann",
        target="two_moons",
        depth=8,
        widths=(64, 64),
        forward_weight=0.0,
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
    c.eval.select = "last"  # nothing but the energy may choose
    if common.is_debug(arg):
        common.debug(c, depth=1, widths=(8,))
    return c
