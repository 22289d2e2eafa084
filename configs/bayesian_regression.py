"""Variational posterior of a Bayesian logistic regression, and its evidence: reverse KL of a flow to the posterior.

Two species of iris, three weights. --config.data.name=target:linear_regression --config.model.target=linear_regression
is the regression on ten features whose posterior and evidence are known in closed form. Draws of the posterior only
judge the flow, it sees none of them. The data sets are ours; the paper's are larger latent-variable models.

Paper: Rezende and Mohamed (2015), arXiv:1505.05770, equation 15
Run: python main.py --config=configs/bayesian_regression.py
Slice: cpu:1
Expect: within 0.1 nats of the entropy of the posterior (test draws); one minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "target:logistic_regression"
    c.data.batch_size = 256
    c.model.update(
        name="boltzmann",
        target="logistic_regression",
        depth=4,
        widths=(32, 32),
        forward_weight=0.0,
        reverse_weight=1.0,
        coupling="affine",
        energy_cap=1e4,
    )
    c.optimizer.learning_rate = 3e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 100.0
    c.train.num_steps = 2_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.eval.every = 500
    c.eval.batch_size = 2_500
    c.eval.select = "last"  # nothing but the energy may choose
    if common.is_debug(arg):
        common.debug(c, depth=1, widths=(8,))
    return c
