"""Noise schedules with parameters: gamma(t) = -log-SNR from t = 0, next to data, to t = 1, noise.

Reference: Kingma et al. (2021), Variational diffusion models, arXiv:2107.00630, section 3.2.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from genflow.core import Params, Path
from genflow.diffusion.path import variance_preserving

UNITS = 1024  # of the monotone network
STEEPNESS = 10.0  # of its units at the start: each bends the schedule over about a third of the time


class Schedule(NamedTuple):
    """gamma(t) = ends[0] + (ends[1] - ends[0]) * progress(t).

    init(key) -> params
    ends(params) -> (gamma(0), gamma(1)), in that order rising
    progress(params, t) -> like t, from 0 at t = 0 to 1 at t = 1, rising
    """

    init: Callable[[Array], Params]
    ends: Callable[[Params], tuple[Array, Array]]
    progress: Callable[[Params, Array], Array]

    def gamma(self, params: Params, t: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """-log-SNR at times t."""
        low, high = self.ends(params)
        return low + (high - low) * self.progress(params, t)

    def path(self, params: Params, grid: int = 0) -> Path:
        """The variance preserving path of these parameters."""
        return variance_preserving(lambda t: -self.gamma(params, t), 0.0, 1.0, grid)


def fixed(gamma_min: float, gamma_max: float) -> Schedule:
    """A straight line without parameters."""
    ends = jnp.float32(gamma_min), jnp.float32(gamma_max)
    return Schedule(lambda key: {}, lambda params: ends, lambda params, t: t)


def linear(gamma_min: float, gamma_max: float) -> Schedule:
    """A straight line whose ends are parameters, and start as given."""

    def init(key):
        return {"gamma_0": jnp.float32(gamma_min), "span": jnp.float32(gamma_max - gamma_min)}

    def ends(params):
        return params["gamma_0"], params["gamma_0"] + jnp.abs(params["span"])

    return Schedule(init, ends, lambda params, t: t)


def monotone(gamma_min: float, gamma_max: float, units: int = UNITS) -> Schedule:
    """A network of positive weights, a t + sum_j w_j sigmoid(b_j a t + c_j), moved and scaled to run from 0 to 1.

    The ends are parameters of their own, as those of `linear`. At the start the sigmoids are evenly spread over the
    time and of one height, so that the line is nearly straight; the paper does not say how it starts.

    Reference: Kingma et al. (2021), arXiv:2107.00630, appendix H.
    """
    straight = linear(gamma_min, gamma_max)

    def init(key):
        where = (jnp.arange(units) + 0.5) / units
        hidden = {
            "log_slope": jnp.full(units, math.log(STEEPNESS)),
            "bias": -STEEPNESS * where,
            "log_weight": jnp.full(units, -math.log(units)),
        }
        return straight.init(key) | {"progress": hidden | {"log_slope_of_time": jnp.float32(0.0)}}

    def raw(params, t):
        h = jnp.exp(params["log_slope_of_time"]) * t
        bent = jax.nn.sigmoid(jnp.exp(params["log_slope"]) * h[..., None] + params["bias"])
        return h + bent @ jnp.exp(params["log_weight"])

    def progress(params, t):
        first, last, here = (raw(params["progress"], jnp.asarray(a, jnp.float32)) for a in (0.0, 1.0, t))
        return (here - first) / (last - first)

    return Schedule(init, straight.ends, progress)


SCHEDULES = {"fixed": fixed, "linear": linear, "monotone": monotone}


def least_variance(
    f: Callable[[PyTree, PyTree], Float[Array, " B"]], scale: float
) -> Callable[[PyTree, PyTree], Float[Array, " B"]]:
    """f(inner, rest) whose derivative with respect to `inner`, and to that alone, is the one of scale * f^2.

    Where the mean of f does not depend on what `inner` came from, that has the gradient of its variance, from the same
    backward pass as the gradient of the rest.

    Args:
      f: whose i-th value depends on the i-th entries of `inner`'s leaves [B] alone.

    Reference: Kingma et al. (2021), arXiv:2107.00630, appendix I.2.
    """
    wrapped = jax.custom_vjp(f)

    def forward(inner, rest):
        values, pull = jax.vjp(f, inner, rest)
        return values, (values, pull)

    def backward(saved, cotangent):
        values, pull = saved
        of_inner, of_rest = pull(cotangent)
        return jax.tree.map(lambda a: 2 * scale * values * a, of_inner), of_rest

    wrapped.defvjp(forward, backward)
    return wrapped
