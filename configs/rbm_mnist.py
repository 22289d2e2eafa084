"""Restricted Boltzmann machine with 500 hidden units on MNIST, binarized at half: persistent chains, centering.

The protocol of PyDeep's tutorial: all 60,000 training images, batches of 100, one chain for each example, one Gibbs
sweep a step, 200 epochs at a learning rate of 0.01. log Z by annealed importance sampling is optimistic; the record
has the reverse walk beside it, and the truth lies between the two as far as the walk back begins at draws of the model.

With 16 hidden units log Z is a sum over 65,536 states, and the likelihood exact. 50 epochs give 142.65 nats centered,
145.96 not; 142.56 and 149.05 in the tutorial:
  python main.py --config=configs/rbm_mnist.py --config.model.hidden=16 --config.model.weight_std=0.2
    --config.train.num_steps=30000
  and --config.model.centering=False beside that.
Contrastive divergence with 25 sweeps (Salakhutdinov and Murray: 86.34 nats, on stochastically binarized images):
  --config.model.gibbs_steps=25 --config.model.persistent=False --config.data.binarize=stochastic

Paper: Melchior et al. (2016), How to center deep Boltzmann machines, JMLR 17; Salakhutdinov and Murray (2008)
Run: python main.py --config=configs/rbm_mnist.py
Slice: v5e:2x2
Expect: 82.45 +- 0.24 nats by forward AIS, 82.29 by reverse AIS (test; 84.86 and 96.61 from PyDeep's tutorial,
  unverified here); half an hour on a shared 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.binarize = "threshold"
    c.data.batch_size = 100
    c.data.validation = 0.0
    c.model.update(name="rbm", hidden=500, visible="bernoulli", gibbs_steps=1, persistent=True, centering=True)
    c.model.update(offset_rate=0.01, weight_std=0.01, noise_std=1.0)
    c.model.update(sample_steps=1_000, ais_chains=100, ais_steps=14_500)
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.01
    c.optimizer.b1 = 0.0
    c.train.num_steps = 120_000
    c.train.steps_per_call = 100
    c.train.log_every = 3_000
    c.eval.batch_size = 1_000
    c.eval.select = "last"
    c.sample.temperatures = ()
    c.checkpoint.every = 30_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", hidden=24, ais_steps=29, sample_steps=10)
    return c
