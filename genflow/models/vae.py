"""Variational autoencoders."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from genflow.core import Model, Spec, sum_event
from genflow.dequantize import center
from genflow.distributions import (
    bernoulli_log_prob,
    discretized_logistic_log_prob,
    discretized_logistic_sample,
    normal_kl,
)
from genflow.networks import mlp


class Observation(NamedTuple):
    """What a decoder's output says of the data: raw has one more axis than x, of size num_params."""

    num_params: int
    log_prob: Callable[[Array, Array], Array]  # (raw, x) -> nats, elementwise
    sample: Callable[..., Array]  # (key, raw, temperature) -> x
    mode: Callable[[Array], Array]  # raw -> the most probable x


def bernoulli() -> Observation:
    """x in {0, 1} with P(x = 1) = sigmoid(raw). Kingma and Welling (2014), arXiv:1312.6114, appendix C.1."""
    return Observation(
        1,
        lambda raw, x: bernoulli_log_prob(x, raw[..., 0]),
        lambda key, raw, temperature: jax.random.bernoulli(key, jax.nn.sigmoid(raw[..., 0])).astype(jnp.float32),
        lambda raw: (raw[..., 0] > 0).astype(jnp.float32),
    )


def discretized_logistic(bins: int, min_log_scale: float) -> Observation:
    """x in 0 .. bins - 1, a logistic rounded to bins. Kingma et al. (2016), arXiv:1606.04934, appendix C."""

    def log_scale(raw):
        return min_log_scale + jax.nn.softplus(raw[..., 1] - min_log_scale)

    return Observation(
        2,
        lambda raw, x: discretized_logistic_log_prob(x, raw[..., 0], log_scale(raw), bins),
        lambda key, raw, temperature: discretized_logistic_sample(key, raw[..., 0], log_scale(raw), bins, temperature),
        lambda raw: jnp.round((jnp.clip(raw[..., 0], -1, 1) + 1) / 2 * (bins - 1)),
    )


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
        raise ValueError(f"models discrete data; {spec.name} is continuous")
    if min((latent_dims, *widths)) < 1:
        raise ValueError(f"latent_dims={latent_dims} and widths={widths} must be above zero")
    observation = bernoulli() if spec.bins == 2 else discretized_logistic(spec.bins, min_log_scale)
    encoder = mlp(widths)(2 * latent_dims)
    decoder = mlp(widths[::-1])(observation.num_params * spec.dims)

    def init(key, batch):
        key_encoder, key_decoder = jax.random.split(key)
        x = center(batch["x"], spec)
        z = jnp.zeros((x.shape[0], latent_dims))
        return {"model": {"encoder": encoder.init(key_encoder, x), "decoder": decoder.init(key_decoder, z)}}, {}

    def posterior(params, x):
        mean, log_std = jnp.split(encoder.apply(params["model"]["encoder"], center(x, spec)), 2, -1)
        return mean, jnp.clip(log_std, -7.0, 2.0)

    def decoded(params, z):
        raw = decoder.apply(params["model"]["decoder"], z)
        return raw.reshape(z.shape[0], *spec.shape, observation.num_params)

    def terms(params, key, x):
        mean, log_std = posterior(params, x)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        reconstruction = sum_event(observation.log_prob(decoded(params, z), x.astype(jnp.float32)))
        return reconstruction, sum_event(normal_kl(mean, log_std))

    def log_prob(params, state, key, batch):
        reconstruction, kl = terms(params, key, batch["x"])
        return reconstruction - kl

    def loss(params, state, key, batch):
        reconstruction, kl = terms(params, key, batch["x"])
        nll = (kl - reconstruction).mean()
        return nll, (state, {"nll": nll, "kl": kl.mean()})

    def sample(params, state, key, num, cond=None, temperature=1.0):
        if isinstance(temperature, tuple):
            raise ValueError("there is one latent level; give one temperature")
        key_z, key_x = jax.random.split(key)
        raw = decoded(params, temperature * jax.random.normal(key_z, (num, latent_dims)))
        return observation.sample(key_x, raw, temperature)

    def encode(params, state, key, batch):
        return posterior(params, batch["x"])[0]

    def decode(params, state, z, cond=None):
        return observation.mode(decoded(params, z))

    return Model(init, {"model": loss}, sample, log_prob, "lower", encode, decode)
