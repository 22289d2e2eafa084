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

from genflow.core import Spec


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
    # x + u must round neither down to x nor up to x + 1 in float32, or the value would change its bin.
    margin = 2.0 ** -(24 - (bins - 1).bit_length())

    def forward(params, x, cond=None, key=None):
        x = x.astype(jnp.float32)
        u = 0.5 if key is None else jnp.clip(jax.random.uniform(key, x.shape), margin, 1.0 - margin)
        return (x + u) / bins - 0.5, jnp.full(x.shape[0], -_dims(x) * math.log(bins))

    def inverse(y):
        return jnp.clip(jnp.floor((y + 0.5) * bins), 0, bins - 1)

    return Dequantizer(lambda key, x, cond=None: ({}, forward({}, x, cond, key)[0]), forward, inverse)


def continuous() -> Dequantizer:
    """Y = x: the data are already continuous."""

    def forward(params, x, cond=None, key=None):
        return x, jnp.zeros(x.shape[0], x.dtype)

    return Dequantizer(lambda key, x, cond=None: ({}, x), forward, lambda y: y)


def center(x: Array, spec: Spec) -> Array:
    """Integers to [-1, 1] (network inputs), continuous data unchanged."""
    return x if spec.bins is None else 2.0 * x.astype(jnp.float32) / (spec.bins - 1) - 1.0


def _dims(x):
    return x.size // x.shape[0]
