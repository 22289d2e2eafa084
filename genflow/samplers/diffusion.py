"""Samplers of diffusion models: one loop, and one short step for each of them.

A step goes from time t to an earlier s: step(denoise, path, key, z, t, s, memory, temperature) -> (z, memory), with
denoise(z, t) -> Denoised for a scalar t. The loop ends at the path's start with what the network expects of the data.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from genflow.core import Denoised, Key, Path
from genflow.diffusion.path import at

Denoise = Callable[[Array, Array], Denoised]


class Sampler(NamedTuple):
    """A step, the memory that it begins with (z -> memory), and how often it asks the network."""

    step: Callable[..., tuple[Array, PyTree]]
    start: Callable[[Array], PyTree] = lambda z: ()
    calls: int = 1


def draw(
    sampler: Sampler,
    denoise: Denoise,
    path: Path,
    times: Float[Array, " N"],
    key: Key,
    z: Array,
    temperature: float | Array = 1.0,
) -> Array:
    """Walks z from times[0] down to times[-1] and denoises it there: (N - 1) * calls + 1 network calls, one loop."""

    def one(carry, inputs):
        z, memory = carry
        t, s, key = inputs
        return sampler.step(denoise, path, key, z, t, s, memory, temperature), None

    keys = jax.random.split(key, len(times) - 1)
    (z, _), _ = jax.lax.scan(one, (z, sampler.start(z)), (times[:-1], times[1:], keys))
    return denoise(z, times[-1]).x


def linear_times(path: Path, num: int) -> Float[np.ndarray, " num"]:
    """From the path's end to its start in equal steps, rounded to the grid where there is one."""
    times = np.linspace(path.end, path.start, num)
    return np.round(times * path.grid / path.end) * path.end / path.grid if path.grid else times


def ancestral() -> Sampler:
    """Algorithm 2 of DDPM: z_s ~ N(mean of q(z_s | z_t, x), variance of q(z_t | z_s)), 'fixedlarge'.

    Reference: Ho et al. (2020), arXiv:2006.11239, equations 6, 7 and algorithm 2.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        (a_t, sigma_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
        ratio = a_t / a_s
        variance = sigma_t**2 - ratio**2 * sigma_s**2
        mean = ratio * sigma_s**2 / sigma_t**2 * z + a_s * variance / sigma_t**2 * denoise(z, t).x
        return mean + temperature * jnp.sqrt(variance) * jax.random.normal(key, z.shape), memory

    return Sampler(step)


def ddim(eta: float = 0.0) -> Sampler:
    """z_s = alpha_s x + sqrt(sigma_s^2 - c^2) noise + c fresh noise, c = eta times the ancestral deviation.

    Reference: Song et al. (2021), Denoising diffusion implicit models, arXiv:2010.02502, equations 12 and 16.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        (a_t, sigma_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
        prediction = denoise(z, t)
        std = eta * sigma_s / sigma_t * jnp.sqrt(sigma_t**2 - (a_t / a_s) ** 2 * sigma_s**2)
        mean = a_s * prediction.x + jnp.sqrt(sigma_s**2 - std**2) * prediction.noise
        return mean + temperature * std * jax.random.normal(key, z.shape), memory

    return Sampler(step)


SAMPLERS = {"ancestral": ancestral, "ddim": ddim}
