"""Continuous densities and their samplers as functions; nats, elementwise unless the name says otherwise."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from genflow.core import sum_event

LOG_2PI = math.log(2 * math.pi)


def normal_log_prob(x: Array, mean: Array | float = 0.0, log_std: Array | float = 0.0) -> Array:
    """Log N(x; mean, exp(log_std)^2), elementwise."""
    return -0.5 * (((x - mean) * jnp.exp(-log_std)) ** 2 + LOG_2PI) - log_std


def standard_normal_log_prob(z: PyTree) -> Float[Array, " B"]:
    """Log N(z; 0, I), summed over every leaf of a batch of latents."""
    return _total(normal_log_prob, z)


def standard_normal_sample(key: Array, like: PyTree, temperature: float | tuple[float, ...] = 1.0) -> PyTree:
    """Draws from N(0, temperature^2 I) for every leaf of a tree of shapes.

    Args:
      temperature: one number, or one for each leaf in the order of jax.tree.leaves.
    """
    return _draw(jax.random.normal, key, like, temperature)


def _total(log_density, z):
    return jnp.stack([sum_event(log_density(leaf)) for leaf in jax.tree.leaves(z)]).sum(0)


def _draw(draw, key, like, temperature=1.0):
    leaves, structure = jax.tree.flatten(like)
    scales = temperature if isinstance(temperature, tuple) else (temperature,) * len(leaves)
    if len(scales) != len(leaves):
        raise ValueError(f"temperature has {len(scales)} values, the latent has {len(leaves)} levels")
    keys = jax.random.split(key, len(leaves))
    draws = [s * draw(k, a.shape, a.dtype) for k, a, s in zip(keys, leaves, scales, strict=True)]
    return structure.unflatten(draws)


class Base(NamedTuple):
    """The density of a flow's latents: log_prob(z) -> [B] over a tree of latents; sample(key, like, temperature)."""

    log_prob: Callable[[PyTree], Array]
    sample: Callable[..., PyTree]


def standard_normal() -> Base:
    """N(0, I); `temperature` is its standard deviation."""
    return Base(standard_normal_log_prob, standard_normal_sample)


def standard_logistic() -> Base:
    """Independent standard logistics, the prior of NICE; `temperature` multiplies a draw.

    Reference: Dinh et al. (2015), NICE, arXiv:1410.8516, section 3.4.
    """
    return Base(lambda z: _total(logistic_log_prob, z), functools.partial(_draw, jax.random.logistic))


def logistic_log_prob(x: Array, mean: Array | float = 0.0, log_scale: Array | float = 0.0) -> Array:
    """Log-density of a logistic, elementwise: u - 2 softplus(u) - log_scale with u = (x - mean) exp(-log_scale)."""
    u = (x - mean) * jnp.exp(-log_scale)
    return jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u) - log_scale


def normal_kl(
    mean: Array, log_std: Array, prior_mean: Array | float = 0.0, prior_log_std: Array | float = 0.0
) -> Array:
    """KL(N(mean, exp(log_std)^2) || N(prior_mean, exp(prior_log_std)^2)), elementwise.

    Reference: Kingma and Welling (2014), arXiv:1312.6114, appendix B, for the standard normal prior.
    """
    log_ratio = log_std - prior_log_std
    distance = (mean - prior_mean) * jnp.exp(-prior_log_std)
    return 0.5 * (jnp.expm1(2 * log_ratio) + distance**2) - log_ratio


def soft_clip(a: Array, limit: float = 7.0) -> Array:
    """limit * tanh(a / limit): the identity near zero, for log-standard deviations that must not overflow.

    Reference: Vahdat and Kautz (2020), NVAE, arXiv:2007.03898, appendix A, with limit 5.
    """
    return limit * jnp.tanh(a / limit)
