"""Inverses of triangular matrices."""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

BLOCK = 32


def lower_inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverse of a lower triangular matrix, by blocks: solves of at most 32 x 32, matrix products for the rest.

    On CPU a larger solve goes to a BLAS whose threads compete with XLA's own: 48 x 48 takes a hundred times longer.

    Reference: Higham (2002), Accuracy and stability of numerical algorithms, section 14.2.2.
    """
    size = len(matrix)
    if size <= BLOCK:
        return solve_triangular(matrix, jnp.eye(size, dtype=matrix.dtype), lower=True)
    half = size // 2
    first, last = lower_inverse(matrix[:half, :half]), lower_inverse(matrix[half:, half:])
    below = -last @ matrix[half:, :half] @ first
    return jnp.block([[first, jnp.zeros((half, size - half), matrix.dtype)], [below, last]])
