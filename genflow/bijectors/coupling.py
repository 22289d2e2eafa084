"""Coupling layers: one part of x sets the parameters of an elementwise transform of the other."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from genflow.core import Bijector, Network, sum_event


class Transform(NamedTuple):
    """An elementwise family: raw has one more axis than x, of size num_params; zeros mean (nearly) the identity.

    forward(raw, x) -> (z, log_derivative), inverse(raw, z) -> (x, log_derivative), all shaped like x.
    """

    num_params: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]


class Split(NamedTuple):
    """How x is cut into the part that passes and the part that is transformed, and put together again."""

    split: Callable[[Array], tuple[Array, Array]]
    merge: Callable[[Array, Array], Array]


def halves(swap: bool = False) -> Split:
    """First half of the last axis passes, the second is transformed; `swap` exchanges the two."""

    def split(x):
        size = (x.shape[-1] + 1) // 2
        first, second = x[..., :size], x[..., size:]
        return (second, first) if swap else (first, second)

    def merge(passed, changed):
        return jnp.concatenate([changed, passed] if swap else [passed, changed], axis=-1)

    return Split(split, merge)


def additive() -> Transform:
    """Z = x + shift. Reference: Dinh et al. (2015), NICE, arXiv:1410.8516, section 3.2."""
    return Transform(
        1,
        lambda raw, x: (x + raw[..., 0], jnp.zeros_like(x)),
        lambda raw, z: (z - raw[..., 0], jnp.zeros_like(z)),
    )


def affine(log_scale: Callable[[Array], Array]) -> Transform:
    """Z = (x + shift) * exp(log_scale(raw)), raw and shift interleaved on the last axis.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, table 1, shift first as in the official code.
    """

    def forward(raw, x):
        s = log_scale(raw[..., 1])
        return (x + raw[..., 0]) * jnp.exp(s), s

    def inverse(raw, z):
        s = log_scale(raw[..., 1])
        return z * jnp.exp(-s) - raw[..., 0], -s

    return Transform(2, forward, inverse)


def sigmoid_scale(raw: Array) -> Array:
    """Log sigmoid(raw + 2): Glow's scale, below 1, so that forward cannot explode."""
    return jax.nn.log_sigmoid(raw + 2.0)


def tanh_scale(bound: float = 2.0) -> Callable[[Array], Array]:
    """Bound * tanh(raw / bound): log-scale within +-bound, identity at raw = 0."""
    return lambda raw: bound * jnp.tanh(raw / bound)


def coupling(transform: Transform, network: Callable[[int], Network], split: Split | None = None) -> Bijector:
    """z1 = x1, z2 = transform(network(x1, cond), x2): triangular Jacobian, log-det = sum of log-derivatives.

    Args:
      network: builds the conditioner for a number of output features; its last layer should start at zero.
      split: which part passes, `halves()` unless given.

    >>> from genflow.networks import mlp
    >>> coupling(additive(), mlp((8,))).init(jax.random.key(0), jnp.zeros((2, 4)))[1].shape
    (2, 4)

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, equations 4 to 8.
    """
    split = halves() if split is None else split

    def raw_params(params, x1, x2, cond):
        raw = _network_for(network, transform, x2).apply(params, x1, cond)
        return checkpoint_name(raw, "conditioner").reshape(*x2.shape, transform.num_params)

    def init(key, x, cond=None):
        x1, x2 = split.split(x)
        params = _network_for(network, transform, x2).init(key, x1, cond)
        return params, forward(params, x, cond)[0]

    def forward(params, x, cond=None, key=None):
        x1, x2 = split.split(x)
        z2, log_derivative = transform.forward(raw_params(params, x1, x2, cond), x2)
        return split.merge(x1, z2), sum_event(log_derivative)

    def inverse(params, z, cond=None, key=None):
        x1, z2 = split.split(z)
        x2, log_derivative = transform.inverse(raw_params(params, x1, z2, cond), z2)
        return split.merge(x1, x2), sum_event(log_derivative)

    return Bijector(init, forward, inverse)


def _network_for(network, transform, x2):
    """Images keep their spatial axes, so a conditioner has features per pixel; vectors have them per event."""
    return network(transform.num_params * (x2.shape[-1] if x2.ndim > 2 else math.prod(x2.shape[1:])))


def split_prior(network: Callable[[int], Network]) -> Bijector:
    """Standardizes the second half given the first: z2 = (x2 - mean(x1)) * exp(-log_std(x1)).

    In front of `factor_out` it is Glow's learned split prior N(mean(x1), std(x1)^2), with a standard normal base.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, split priors of the official code.
    """
    return coupling(affine(lambda raw: -raw), network)
