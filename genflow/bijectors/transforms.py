"""Elementwise families of a coupling: raw network output in, one invertible function per scalar out."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from genflow.core import Network


class Transform(NamedTuple):
    """An elementwise family: raw has one more axis than x, of size num_params; zeros mean (nearly) the identity.

    forward(raw, x) -> (z, log_derivative), inverse(raw, z) -> (x, log_derivative). The leading axes of raw broadcast
    against x; both results have the shape of x or broadcast to it.
    """

    num_params: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]


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


def double_sigmoid_scale(raw: Array) -> Array:
    """Log(2 sigmoid(raw)): Jet's scale, within (0, 2), identity at raw = 0."""
    return jax.nn.log_sigmoid(raw) + math.log(2.0)


def tanh_scale(bound: float = 2.0) -> Callable[[Array], Array]:
    """Bound * tanh(raw / bound): log-scale within +-bound, identity at raw = 0."""
    return lambda raw: bound * jnp.tanh(raw / bound)


def learned_tanh(network: Callable[[int], Network]) -> Callable[[int], Network]:
    """A conditioner of `affine` whose log-scales are s tanh(raw), s one learned number that starts at 0.

    Use it with `affine(lambda log_scale: log_scale)`. The last layer of `network` must not start at zero: s and
    tanh(raw) would both be zero and neither would ever learn.

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, the official code.
    """

    def build(features):
        inner = network(features)

        def init(key, x, cond=None):
            return {"network": inner.init(key, x, cond), "scale": jnp.zeros((), x.dtype)}

        def apply(params, x, cond=None, key=None):
            out = inner.apply(params["network"], x, cond, key)
            is_log_scale = jnp.arange(features) % 2 == 1
            return jnp.where(is_log_scale, params["scale"] * jnp.tanh(out), out)

        return Network(init, apply)

    return build


def sinh_arcsinh() -> Transform:
    """Z = sinh(tail * arcsinh(x) + skew) with tail = exp(tanh(raw)): tails like |x|^tail, heavier or lighter.

    The inverse has the same form and is exact in the tails; |skew| must stay below 80 in float32.

    Reference: Jones and Pewsey (2009), Sinh-arcsinh distributions, Biometrika 96(4).
    """

    def forward(raw, x):
        u, log_tail = jnp.arcsinh(x), jnp.tanh(raw[..., 1])
        v = jnp.exp(log_tail) * u + raw[..., 0]
        return jnp.sinh(v), log_tail + _log_cosh(v) - _log_cosh(u)

    def inverse(raw, z):
        v, log_tail = jnp.arcsinh(z), jnp.tanh(raw[..., 1])
        u = (v - raw[..., 0]) * jnp.exp(-log_tail)
        return jnp.sinh(u), _log_cosh(u) - _log_cosh(v) - log_tail

    return Transform(2, forward, inverse)


def _log_cosh(x):
    return jnp.logaddexp(x, -x) - jnp.log(2.0)
