"""Guidance: what a network expects, pushed towards a class, by the network itself or by a classifier of noisy data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Denoised, Path
from genflow.diffusion.path import at

Denoise = Callable[[Array, Array], Denoised]


def classifier_free(
    denoise: Callable[[Array, Array, Array], Denoised], c: Float[Array, "B C"], weight: float | Array
) -> Denoise:
    """(1 + w) conditional - w unconditional, of noise and data alike, in one call of a batch of both.

    Args:
      denoise: (z [2B, *event], t [2B], c [2B, C]) -> Denoised.
      c: conditions, of which zeros are none.

    Reference: Ho and Salimans (2022), Classifier-free diffusion guidance, arXiv:2207.12598, equation 6.
    """
    both = jnp.concatenate([c, jnp.zeros_like(c)])

    def guided(z, t):
        t = jnp.broadcast_to(t, z.shape[:1])
        found = denoise(jnp.concatenate([z, z]), jnp.concatenate([t, t]), both)
        (x, x_free), (noise, noise_free) = (jnp.split(a, 2) for a in found[:2])
        variance = None if found.log_variance is None else jnp.split(found.log_variance, 2)[0]
        return Denoised(x + weight * (x - x_free), noise + weight * (noise - noise_free), variance)

    return guided


def classifier_guided(
    denoise: Denoise, path: Path, log_prob: Callable[[Array, Array], Float[Array, " B"]], scale: float | Array = 1.0
) -> Denoise:
    """noise - scale sigma grad log p(y | z_t), and the data that go with it.

    Of an unconditional model, the exact classifier and scale 1 it is the conditional model.

    Args:
      log_prob: (z, t) -> [B] nats, log p(y | z_t) of the class that is wanted; differentiated in reverse mode.

    Reference: Dhariwal and Nichol (2021), Diffusion models beat GANs on image synthesis, arXiv:2105.05233, equation 14
      and algorithm 2.
    """

    def guided(z, t):
        point, found = at(path, t, z.ndim), denoise(z, t)
        push = scale * point.sigma * jax.grad(lambda z: log_prob(z, t).sum())(z)
        return found._replace(x=found.x + point.sigma / point.alpha * push, noise=found.noise - push)

    return guided
