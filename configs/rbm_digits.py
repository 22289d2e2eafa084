"""Restricted Boltzmann machine with 16 hidden units on scikit-learn's digits, binarized at half: an exact likelihood.

Contrastive divergence is not told the likelihood that it raises: here it can be watched, as log Z is a sum over the
65,536 states of the hidden units.

Paper: Hinton (2002), Training products of experts by minimizing contrastive divergence, Neural Computation 14
Run: python main.py --config=configs/rbm_digits.py
Slice: cpu:1
Expect: 18.2 nats (test; independent pixels 25.1, no published figure); half a minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.binarize = "threshold"
    c.data.batch_size = 100
    c.model.update(name="rbm", hidden=16, visible="bernoulli", gibbs_steps=1, persistent=True, centering=True)
    c.model.update(offset_rate=0.01, weight_std=0.05, noise_std=1.0)
    c.model.update(sample_steps=1_000, ais_chains=100, ais_steps=1_000)
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.05
    c.optimizer.b1 = 0.0
    c.optimizer.schedule = "linear"
    c.train.num_steps = 20_000
    c.train.steps_per_call = 100
    c.train.log_every = 2_000
    c.eval.every = 1_000
    c.sample.temperatures = ()
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, hidden=4, sample_steps=10)
    return c
