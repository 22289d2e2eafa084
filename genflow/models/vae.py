"""Variational autoencoders."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec, sum_event
from genflow.dequantize import center
from genflow.distributions import (
    bernoulli_log_prob,
    discretized_logistic_log_prob,
    discretized_logistic_sample,
    normal_kl,
)
from genflow.networks import mlp


def vae(
    spec: Spec,
    latent_dims: int = 16,
    widths: tuple[int, ...] = (256, 256),
    min_log_scale: float = -5.0,
) -> Model:
    """Gaussian posterior and prior, ELBO = E_q[log p(x | z)] - KL(q(z | x) || p(z)).

    The decoder is Bernoulli for two bins and a discretized logistic otherwise; both are masses of the discrete data.

    Args:
      min_log_scale: floor of the logistic's log-scale, in units of half the data range.

    Raises:
      ValueError: the data are continuous.

    Reference: Kingma and Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114, equation 10.
    """
    if spec.bins is None:
        raise ValueError("vae models discrete data; data.name names a continuous density")
    encoder, decoder = mlp(widths)(2 * latent_dims), mlp(widths[::-1])(2 * spec.dims)

    def init(key, batch):
        key_encoder, key_decoder = jax.random.split(key)
        x = center(batch["x"], spec)
        z = jnp.zeros((x.shape[0], latent_dims))
        return {"model": {"encoder": encoder.init(key_encoder, x), "decoder": decoder.init(key_decoder, z)}}, {}

    def posterior(params, x):
        mean, log_std = jnp.split(encoder.apply(params["model"]["encoder"], center(x, spec)), 2, -1)
        return mean, jnp.clip(log_std, -7.0, 2.0)

    def likelihood(params, z):
        raw = decoder.apply(params["model"]["decoder"], z).reshape(z.shape[0], *spec.shape, 2)
        return raw[..., 0], min_log_scale + jax.nn.softplus(raw[..., 1] - min_log_scale)

    def log_likelihood(params, z, x):
        x = x.astype(jnp.float32)
        mean, log_scale = likelihood(params, z)
        if spec.bins == 2:
            return sum_event(bernoulli_log_prob(x, mean))
        return sum_event(discretized_logistic_log_prob(x, mean, log_scale, spec.bins))

    def terms(params, key, x):
        mean, log_std = posterior(params, x)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return log_likelihood(params, z, x), sum_event(normal_kl(mean, log_std))

    def log_prob(params, state, key, batch):
        reconstruction, kl = terms(params, key, batch["x"])
        return reconstruction - kl

    def loss(params, state, key, batch):
        reconstruction, kl = terms(params, key, batch["x"])
        nll = (kl - reconstruction).mean()
        return nll, (state, {"nll": nll, "kl": kl.mean()})

    def sample(params, state, key, num, cond=None, temperature=1.0):
        key_z, key_x = jax.random.split(key)
        mean, log_scale = likelihood(params, temperature * jax.random.normal(key_z, (num, latent_dims)))
        if spec.bins == 2:
            return jax.random.bernoulli(key_x, jax.nn.sigmoid(mean)).astype(jnp.float32)
        return discretized_logistic_sample(key_x, mean, log_scale, spec.bins, temperature)

    def encode(params, state, key, batch):
        return posterior(params, batch["x"])[0]

    def decode(params, state, z, cond=None):
        mean = likelihood(params, z)[0]
        unit = jax.nn.sigmoid(mean) if spec.bins == 2 else (jnp.clip(mean, -1, 1) + 1) / 2
        return jnp.round(unit * (spec.bins - 1))

    return Model(init, {"model": loss}, sample, log_prob, "lower", encode, decode)
