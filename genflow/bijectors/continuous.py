"""Continuous flows: an ordinary differential equation carries x to z."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genflow import ode
from genflow.bijectors.residual import rademacher
from genflow.core import Bijector, Key, Network, Params, sum_event

Probes = Callable[[Array, Key | None], Array]


def every_direction(x: Float[Array, "B *event"], key: Key | None = None) -> Float[Array, "D 1 *event"]:
    """The unit vectors: tr J = sum_i e_i^T J e_i exactly, one vector-Jacobian product a dimension."""
    dims = math.prod(x.shape[1:])
    return jnp.eye(dims, dtype=x.dtype).reshape(dims, 1, *x.shape[1:])


def one_direction(x: Float[Array, "B *event"], key: Key | None = None) -> Float[Array, "1 B *event"]:
    """One Rademacher vector for each example: v^T J v, unbiased for tr J; v from a constant seed without a key.

    Reference: Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.
    """
    return rademacher(x, key)[None]


def continuous(
    network: Callable[[int], Network], probes: Probes = every_direction, rtol: float = 1e-5, atol: float = 1e-5
) -> Bijector:
    """dx/dt = f(x, t) from x(0) = x to z = x(1), with d log_det / dt = tr df/dx.

    Solved by Tsit5 with adaptive steps, the same for all examples of a batch, so that an example's value depends on
    its batch within the tolerances. The probes of the trace are drawn once for a solution: new ones in each step
    would look like a rough field and send the number of steps up. Gradients are those of the steps that were taken.

    Args:
      network: builds f; its cond is [t, cond], of shape [B, 1 + D]. Images ask for features per pixel.
      probes: `every_direction` (exact trace, few dimensions) or `one_direction` (Hutchinson's estimate).
      rtol, atol: of one step, for x and the log-det together; tolerances below rounding error are raised to it.

    Reference: Grathwohl et al. (2019), FFJORD, arXiv:1810.01367, equations 3 and 8.
    """
    solve = _solver(network, probes, rtol, atol)

    def init(key, x, cond=None):
        params = network(x.shape[-1]).init(key, x, _with_time(0.0, x, cond))
        return params, forward(params, x, cond)[0]

    def forward(params, x, cond=None, key=None):
        return solve(params, x, cond, key, 0.0, 1.0)[:2]

    def inverse(params, z, cond=None, key=None):
        return solve(params, z, cond, key, 1.0, 0.0)[:2]

    return Bijector(init, forward, inverse)


def function_evaluations(
    network: Callable[[int], Network],
    params: Params,
    x: Array,
    cond: Array | None = None,
    probes: Probes = every_direction,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Int[Array, ""]:
    """How often `continuous(network, probes, rtol, atol)` evaluates f and its trace from x to z, rejected steps too."""
    steps = _solver(network, probes, rtol, atol)(params, x, cond, None, 0.0, 1.0)[2]
    return ode.function_evaluations(steps)


def _solver(network, probes, rtol, atol):
    """(params, x, cond, key, start, end) -> (x(end), log_det, steps)."""

    # one function for all solutions, with all that varies in its arguments: it is traced once
    def field(t, state, arguments):
        params, cond, directions = arguments
        x, _ = state
        velocity, pull = jax.vjp(lambda x: network(x.shape[-1]).apply(params, x, _with_time(t, x, cond)), x)
        products = jax.vmap(lambda v: sum_event(pull(jnp.broadcast_to(v, x.shape))[0] * v))(directions)
        return velocity, products.sum(0)

    def solve(params, x, cond, key, start, end):
        state, arguments = (x, sum_event(jnp.zeros_like(x))), (params, cond, probes(x, key))
        (z, log_det), steps = ode.solve(field, state, arguments, start, end, rtol, atol)
        return z, log_det, steps

    return solve


def _with_time(t, x, cond):
    time = jnp.full((x.shape[0], 1), t, x.dtype)
    return time if cond is None else jnp.concatenate([time, cond.astype(x.dtype)], axis=1)
