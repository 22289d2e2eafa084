"""Gaussian VAE with a Bernoulli decoder on binarized MNIST (Larochelle's fixed split): 128 latents, 512-512 units.

Protocol: the sizes are those of the repository that the figure is from, github.com/altosaar/variational-autoencoder, as
far as we remember them; the paper has one layer of 500 tanh units and Adagrad, and prints curves, not figures. Ours are
Adam, a cosine, the average of the parameters that is scored, and log p estimated by 128 draws of q.

Paper: Kingma and Welling (2014), arXiv:1312.6114
Run: python main.py --config=configs/vae_mnist.py
Slice: v5e:2x2
Expect: at most 97.10 nats by importance samples, 103.31 by the ELBO (test, from the README of altosaar's repository,
  unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "binarized_mnist"
    c.data.batch_size = 128
    c.model.update(name="vae", latent_dims=128, widths=(512, 512), activation="relu")
    c.model.update(posterior="gaussian", posterior_depth=2, context_dims=128)
    c.model.update(prior="normal", prior_depth=4, components=500, flow_widths=(256,))
    c.model.update(likelihood="auto", causal_width=16, causal_blocks=3, min_log_scale=-5.0, std=0.0)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=0, samples=1, gradient="reparameterized")
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 65_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.train.ema_decay = 0.999
    c.eval.every = 2_500
    c.eval.importance_samples = 128
    c.eval.samples_per_call = 16
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", latent_dims=2, widths=(8,))
    return c
