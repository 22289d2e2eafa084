"""Gaussianization of every dimension by its own distribution function."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from genflow.core import Bijector, sum_event
from genflow.distributions import normal_log_prob


def histogram_gaussianization(bins: int, smoothing: float = 1.0) -> Bijector:
    """z_i = Phi^-1(F_i(x_i)) with F_i a learned piecewise-linear distribution function on [-1/2, 1/2).

    F_i starts as the first batch's histogram of dimension i with `smoothing` added to each count, so that the flow
    behind it starts from the independent-pixel model and learns only what ties the pixels together. Both tails of F
    are computed apart: float32 holds 1e-30 but not 1 - 1e-30.

    Reference: Chen and Gopinath (2000), Gaussianization; Mueller et al. (2019), Neural importance sampling,
    arXiv:1808.03856, section 4.1 (piecewise-linear transforms).
    """

    def init(key, x, cond=None):
        index, _ = _locate(x, bins)
        counts = jax.nn.one_hot(index, bins, dtype=x.dtype).sum(0) + smoothing
        params = {"log_mass": jnp.log(counts / counts.sum(-1, keepdims=True))}
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        mass, below, above = _tables(params)
        index, fraction = _locate(x, bins)
        mass_k = _pick(mass, index)
        lower = _pick(below, index) + mass_k * fraction
        upper = _pick(above, index) + mass_k * (1.0 - fraction)
        z = jnp.where(
            lower < 0.5, ndtri(_positive(jnp.minimum(lower, 0.5))), -ndtri(_positive(jnp.minimum(upper, 0.5)))
        )
        return z, sum_event(jnp.log(mass_k * bins) - normal_log_prob(z))

    def inverse(params, z, cond=None, key=None):
        mass, below, above = _tables(params)
        lower, upper = ndtr(z), ndtr(-z)
        # the bin is the number of upper edges that z has passed, counted in the tail that is exact
        passed = jnp.where((z < 0)[..., None], lower[..., None] >= below + mass, upper[..., None] <= above)
        index = jnp.minimum(passed.sum(-1), bins - 1)
        mass_k = _pick(mass, index)
        fraction = jnp.where(
            z < 0, (lower - _pick(below, index)) / mass_k, 1.0 - (upper - _pick(above, index)) / mass_k
        )
        x = (index + jnp.clip(fraction, 0.0, 1.0)) / bins - 0.5
        return x.astype(z.dtype), sum_event(normal_log_prob(z) - jnp.log(mass_k * bins))

    return Bijector(init, forward, inverse)


def _locate(x, bins):
    position = (x + 0.5) * bins
    index = jnp.clip(jnp.floor(position), 0, bins - 1)
    return index.astype(jnp.int32), position - index


def _tables(params):
    """Mass of each bin, and the mass below and above it."""
    mass = jax.nn.softmax(params["log_mass"])
    below = jnp.cumsum(mass, -1) - mass
    above = jnp.flip(jnp.cumsum(jnp.flip(mass, -1), -1), -1) - mass
    return mass, below, above


def _pick(table, index):
    return jnp.take_along_axis(jnp.broadcast_to(table, (*index.shape, table.shape[-1])), index[..., None], -1)[..., 0]


def _positive(p):
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)
