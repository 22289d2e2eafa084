"""Langevin dynamics: noisy steps uphill on a log-density, of which the score alone is asked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Key


def langevin_step(
    score: Callable[[Array], Array],
    key: Key,
    z: Float[Array, "B *event"],
    step_size: float | Array,
    noise_scale: float | Array,
) -> Float[Array, "B *event"]:
    """z + step_size * score(z) + noise_scale * N(0, I).

    Of noise_scale = sqrt(2 step_size) the density itself is stationary, as far as steps are small; energy-based models
    are trained with less noise, which makes it the density to the power 2 step_size / noise_scale^2.
    """
    return z + step_size * score(z) + noise_scale * jax.random.normal(key, z.shape, z.dtype)


def langevin(
    score: Callable[[Array], Array],
    key: Key,
    z: Float[Array, "B *event"],
    num_steps: int,
    step_size: float | Array,
    noise_scale: float | Array | None = None,
) -> Float[Array, "B *event"]:
    """`num_steps` steps from z, as one compiled loop.

    Args:
      score: the gradient of a log-density; of an energy, minus its gradient.
      noise_scale: None: sqrt(2 step_size).

    Reference: Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics, equation 3, without
      minibatches; Song and Ermon (2019), arXiv:1907.05600, equation 4, whose epsilon is 2 step_size.
    """
    noise_scale = jnp.sqrt(2 * step_size) if noise_scale is None else noise_scale

    def one(i, z):
        return langevin_step(score, jax.random.fold_in(key, i), z, step_size, noise_scale)

    return jax.lax.fori_loop(0, num_steps, one, z)
