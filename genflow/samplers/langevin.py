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
    max_score: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> Float[Array, "B *event"]:
    """z + step_size * score(z) + noise_scale * N(0, I).

    Of noise_scale = sqrt(2 step_size) the density itself is stationary, as far as steps are small; energy-based models
    are trained with less noise, which makes it the density to the power 2 step_size / noise_scale^2: their
    `temperature` is far below 1.

    Args:
      max_score: each coordinate of the score is clipped to at most this; 0: no limit.
      interval: to which each coordinate of the result is clipped.
    """
    s = score(z)
    if max_score:
        s = jnp.clip(s, -max_score, max_score)
    z = z + step_size * s + noise_scale * jax.random.normal(key, z.shape, z.dtype)
    return z if interval is None else jnp.clip(z, *interval)


def temperature(step_size: float, noise_scale: float) -> float:
    """noise_scale^2 / (2 step_size): small steps without clipping draw from the density to the power 1 / temperature.

    >>> round(temperature(10.0, 0.005), 8)
    1.25e-06
    """
    return noise_scale**2 / (2 * step_size)


def langevin(
    score: Callable[[Array], Array],
    key: Key,
    z: Float[Array, "B *event"],
    num_steps: int,
    step_size: float | Array,
    noise_scale: float | Array | None = None,
    max_score: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> Float[Array, "B *event"]:
    """`num_steps` steps from z, as one compiled loop.

    Args:
      score: the gradient of a log-density; of an energy, minus its gradient.
      noise_scale: None: sqrt(2 step_size).
      max_score, interval: see `langevin_step`.

    Reference: Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics, equation 3, without
      minibatches; Song and Ermon (2019), arXiv:1907.05600, equation 4, whose epsilon is 2 step_size.
    """
    noise_scale = jnp.sqrt(2 * step_size) if noise_scale is None else noise_scale

    def one(i, z):
        return langevin_step(score, jax.random.fold_in(key, i), z, step_size, noise_scale, max_score, interval)

    return jax.lax.fori_loop(0, num_steps, one, z)
