"""The probability-flow equation: data to noise and back without noise, and the likelihood that it gives.

dz/dt = d alpha/dt x + d sigma/dt noise, with x and noise as a network expects them from z, has the marginals of the
noising process; of every path alike, which is what its SDE's drift and diffusion come to.

Reference: Song et al. (2021), Score-based generative modeling through SDEs, arXiv:2011.13456, equation 13.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from genflow import ode
from genflow.core import Denoised, Path, sum_event
from genflow.diffusion.path import at

Denoise = Callable[[PyTree, Array, Array], Denoised]  # (arguments, z [B, *event], t []) -> Denoised


def velocity(path: Path, prediction: Denoised, t: Array) -> Array:
    """dz/dt of the probability-flow equation."""
    point = at(path, t, prediction.x.ndim)
    return point.alpha_rate * prediction.x + point.sigma_rate * prediction.noise


def transport(
    path_of: Callable[[PyTree], Path],
    denoise: Denoise,
    arguments: PyTree,
    z: Float[Array, "B *event"],
    times: tuple[float, float],
    rtol: float,
    atol: float,
) -> tuple[Array, Int[Array, ""]]:
    """z carried from the first time to the second, and how often the network was asked."""

    def field(t, z, arguments):
        return velocity(path_of(arguments), denoise(arguments, z, t), t)

    carried, steps = ode.solve(field, z, arguments, *times, rtol, atol)
    return carried, ode.function_evaluations(steps)


def transport_with_log_det(
    path_of: Callable[[PyTree], Path],
    denoise: Denoise,
    arguments: PyTree,
    z: Float[Array, "B *event"],
    times: tuple[float, float],
    probes: Float[Array, "P ..."],
    rtol: float,
    atol: float,
) -> tuple[Array, Float[Array, " B"], Int[Array, ""]]:
    """`transport`, and the log-determinant of its map, by products of the Jacobian with the probes.

    Args:
      probes: see `bijectors.continuous.every_direction` and `one_direction`.
    """

    def field(t, state, both):
        arguments, probes = both
        move, pull = jax.vjp(lambda z: velocity(path_of(arguments), denoise(arguments, z, t), t), state[0])
        products = jax.vmap(lambda v: sum_event(pull(jnp.broadcast_to(v, move.shape))[0] * v))(probes)
        return move, products.sum(0)

    state = (z, sum_event(jnp.zeros_like(z)))
    (carried, log_det), steps = ode.solve(field, state, (arguments, probes), *times, rtol, atol)
    return carried, log_det, ode.function_evaluations(steps)
