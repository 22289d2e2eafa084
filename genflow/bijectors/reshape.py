"""Rearrangements: volume-preserving, no parameters."""

import jax.numpy as jnp

from genflow.bijectors.combinators import fixed
from genflow.core import Bijector


def squeeze(factor: int = 2) -> Bijector:
    """Space to depth: [B, H, W, C] -> [B, H / f, W / f, C f^2].

    >>> squeeze().forward({}, jnp.zeros((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 12)

    Raises:
      ValueError: height or width is not divisible by the factor.

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, section 3.6.
    """

    def forward(x):
        B, H, W, C = x.shape
        if H % factor or W % factor:
            raise ValueError(f"squeeze: image of {H}x{W} is not divisible by {factor}; use fewer levels")
        x = x.reshape(B, H // factor, factor, W // factor, factor, C)
        return x.transpose(0, 1, 3, 5, 2, 4).reshape(B, H // factor, W // factor, C * factor**2)

    def inverse(z):
        B, H, W, C = z.shape
        z = z.reshape(B, H, W, C // factor**2, factor, factor)
        return z.transpose(0, 1, 4, 2, 5, 3).reshape(B, H * factor, W * factor, C // factor**2)

    return fixed(forward, inverse)


def flip(axis: int = -1) -> Bijector:
    """Reverses an axis, the last unless told."""
    return fixed(lambda x: jnp.flip(x, axis), lambda z: jnp.flip(z, axis))


def flatten(shape: tuple[int, ...]) -> Bijector:
    """Events of this shape to vectors: [B, *shape] -> [B, D], the last axis fastest."""
    return fixed(lambda x: x.reshape(x.shape[0], -1), lambda z: z.reshape(z.shape[0], *shape))
