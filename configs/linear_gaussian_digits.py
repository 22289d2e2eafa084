"""Probabilistic principal components of the embedded digits, by the ELBO: what a VAE is without its networks.

Evidence and posterior of the dequantized digits y = x + u are known in closed form (see docs/bayesian-inference.md).
Of continuous data the ELBO can be tight; here it cannot be quite, as q sees the integer x, and p(z | y) depends on u.
The digits are ours; the paper has other data and an eigenvector solution.

Paper: Tipping and Bishop (1999), Probabilistic principal component analysis
Run: python main.py --config=configs/linear_gaussian_digits.py
Slice: cpu:1
Expect: 3.56 bits/dim (test, no published figure); one minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="linear_gaussian", latent_dims=12)
    c.optimizer.learning_rate = 3e-3
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 4_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.train.ema_decay = 0.995
    c.eval.every = 250
    c.eval.num_repeats = 16
    if common.is_debug(arg):
        common.debug(c, latent_dims=2)
    return c
