"""The only place that scales data: from integers 0 .. bins - 1 to continuous values and back.

A dequantizer is not a bijection (many y give one x), so it has a type of its own and cannot be chained by accident.
With y = f(x + u), u ~ q(u | x), the discrete mass obeys log P(x) >= E[log p(y) + log_weight]
(Theis et al. 2016, arXiv:1511.01844; Ho et al. 2019, Flow++, arXiv:1902.00275, equation 10).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from genflow.core import Bijector, Network, Spec, sum_event
from genflow.distributions import logistic_log_prob, normal_log_prob


class Dequantizer(NamedTuple):
    """init(key, x, cond) -> (params, y); forward(params, x, cond, key) -> (y, log_weight [B]); inverse(y) -> x."""

    init: Callable
    forward: Callable
    inverse: Callable[[Array], Array]


def dequantizer(spec: Spec) -> Dequantizer:
    """Uniform dequantization for discrete data, the identity for continuous data."""
    return continuous() if spec.bins is None else uniform(spec.bins)


def uniform(bins: int) -> Dequantizer:
    """Y = (x + u) / bins - 1/2 with u ~ U[0, 1): y in [-1/2, 1/2), log_weight = -dims log(bins) nats.

    Without a key, u = 1/2 (the middle of the bin).

    >>> uniform(4).forward({}, jnp.array([[0, 3]]))[0].tolist()
    [[-0.375, 0.375]]
    """

    def forward(params, x, cond=None, key=None):
        u = jnp.full(x.shape, 0.5) if key is None else jax.random.uniform(key, x.shape)
        return _embed(x, u, bins), jnp.full(x.shape[0], -_dims(x) * math.log(bins))

    return Dequantizer(lambda key, x, cond=None: ({}, forward({}, x, cond, key)[0]), forward, _bin_of(bins))


def variational(bins: int, flow: Bijector, context: Network) -> Dequantizer:
    """Y = (x + u) / bins - 1/2 with u = sigmoid(flow(e; context(x))), e ~ N(0, I): noise that the data shape.

    log_weight = -log q(u | x) - dims log(bins), where log q(u | x) = log N(e; 0, I) - log |det du/de|. Without a
    key, e = 0.

    Args:
      flow: e -> logit u, conditional; its cond is the context.
      context: network of the centered integers, whose output conditions the flow at every layer.

    Reference: Ho et al. (2019), Flow++, arXiv:1902.00275, section 3.1, equations 9 to 12.
    """

    def init(key, x, cond=None):
        key_context, key_flow, key_noise = jax.random.split(key, 3)
        centered = _centered(x, bins)
        features = context.init(key_context, centered, cond)
        h = context.apply(features, centered, cond)
        params = {"context": features, "flow": flow.init(key_flow, jax.random.normal(key_noise, x.shape), h)[0]}
        return params, forward(params, x, cond, key_noise)[0]

    def forward(params, x, cond=None, key=None):
        noise = jnp.zeros(x.shape) if key is None else jax.random.normal(key, x.shape)
        h = context.apply(params["context"], _centered(x, bins), cond)
        logits, log_det = flow.forward(params["flow"], noise, h)
        margin = _margin(bins)
        u = margin + (1.0 - 2.0 * margin) * jax.nn.sigmoid(logits)
        # log |du/de| = log_det + log sigmoid'(logits) + log(1 - 2 margin)
        log_slope = logistic_log_prob(logits) + math.log1p(-2.0 * margin)
        log_weight = sum_event(log_slope - normal_log_prob(noise)) + log_det - _dims(x) * math.log(bins)
        return _embed(x, u, bins), log_weight

    return Dequantizer(init, forward, _bin_of(bins))


def _embed(x, u, bins):
    return (x.astype(jnp.float32) + jnp.clip(u, _margin(bins), 1.0 - _margin(bins))) / bins - 0.5


def _margin(bins):
    """Of the noise from 0 and 1: x + u must round neither down to x nor up to x + 1, or it would change its bin."""
    return 2.0 ** -(24 - (bins - 1).bit_length())


def _bin_of(bins):
    return lambda y: jnp.clip(jnp.floor((y + 0.5) * bins), 0, bins - 1)


def _centered(x, bins):
    return 2.0 * x.astype(jnp.float32) / (bins - 1) - 1.0


def continuous() -> Dequantizer:
    """Y = x: the data are already continuous."""

    def forward(params, x, cond=None, key=None):
        return x, jnp.zeros(x.shape[0], x.dtype)

    return Dequantizer(lambda key, x, cond=None: ({}, x), forward, lambda y: y)


def centered(spec: Spec) -> Dequantizer:
    """Y = center(x) + (u - 1/2) w with u ~ U[0, 1) and bins of width w = 2 / (bins - 1): the scale of diffusion models.

    log_weight = dims log w; `inverse` rounds to the nearest integer. Continuous data stay as they are.

    >>> centered(Spec("gray", (2,), 5)).forward({}, jnp.array([[0, 3]]))[0].tolist()
    [[-1.0, 0.5]]
    """
    if spec.bins is None:
        return continuous()
    width = 2.0 / (spec.bins - 1)

    def forward(params, x, cond=None, key=None):
        u = 0.5 if key is None else jax.random.uniform(key, x.shape)
        return _centered(x, spec.bins) + width * (u - 0.5), jnp.full(x.shape[0], _dims(x) * math.log(width))

    def inverse(y):
        return jnp.clip(jnp.round((y + 1.0) / width), 0, spec.bins - 1)

    return Dequantizer(lambda key, x, cond=None: ({}, forward({}, x, cond, key)[0]), forward, inverse)


def center(x: Array, spec: Spec) -> Array:
    """Integers to [-1, 1] (network inputs), continuous data unchanged."""
    return x if spec.bins is None else _centered(x, spec.bins)


def _dims(x):
    return x.size // x.shape[0]
