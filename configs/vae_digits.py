"""Gaussian VAE with a discretized-logistic decoder on the embedded digits.

Paper: Kingma and Welling (2014), arXiv:1312.6114
Run: python main.py --config=configs/vae_digits.py
Slice: cpu:1
Expect: below independent pixels, 2.43 bits/dim (test, no published figure); one minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="vae", latent_dims=12, widths=(128, 128), activation="silu")
    c.model.update(posterior="gaussian", posterior_depth=4, context_dims=32)
    c.model.update(prior="normal", prior_depth=4, components=10, flow_widths=(64,))
    c.model.update(likelihood="auto", causal_width=16, causal_blocks=3, min_log_scale=-5.0, std=0.0)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=0, samples=1, gradient="reparameterized")
    c.optimizer.learning_rate = 1e-3
    c.optimizer.weight_decay = 1.0
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 4_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.train.ema_decay = 0.995
    c.eval.every = 250
    c.eval.num_repeats = 16
    if common.is_debug(arg):
        common.debug(c, widths=(8,))
    return c
