"""Images as tokens, and the orders and halves of tokens that couplings over patches use."""

import jax.numpy as jnp

from genflow.bijectors.combinators import fixed
from genflow.core import Bijector


def patchify(size: int, height: int, width: int) -> Bijector:
    """Image [B, H, W, C] -> tokens [B, H W / size^2, size^2 C], patches row by row.

    >>> patchify(2, 4, 6).forward({}, jnp.zeros((1, 4, 6, 3)))[0].shape
    (1, 6, 12)

    Raises:
      ValueError: height or width is not divisible by the size.
    """
    if height % size or width % size:
        raise ValueError(f"patch={size} does not divide an image of {height}x{width}; choose a divisor")
    rows, columns = height // size, width // size

    def forward(x):
        patches = x.reshape(x.shape[0], rows, size, columns, size, -1).swapaxes(2, 3)
        return patches.reshape(x.shape[0], rows * columns, -1)

    def inverse(z):
        patches = z.reshape(z.shape[0], rows, columns, size, size, -1).swapaxes(2, 3)
        return patches.reshape(z.shape[0], height, width, -1)

    return fixed(forward, inverse)


def parity_order(rows: int, columns: int) -> Bijector:
    """Sorts the tokens of a grid into four equal parts by the parity of (row, column): 00, 11, 01, 10.

    The first half is then one color of a checkerboard.

    >>> parity_order(2, 2).forward({}, jnp.arange(4.0)[None, :, None])[0].ravel().tolist()
    [0.0, 3.0, 1.0, 2.0]
    """
    if rows % 2 or columns % 2:
        raise ValueError(f"a grid of {rows}x{columns} tokens has odd sides; choose another patch size")

    def forward(x):
        grid = x.reshape(x.shape[0], rows // 2, 2, columns // 2, 2, -1)
        parts = [grid[:, :, row, :, column] for row, column in ((0, 0), (1, 1), (0, 1), (1, 0))]
        return jnp.stack(parts, 1).reshape(x.shape)

    def inverse(z):
        p00, p11, p01, p10 = jnp.moveaxis(z.reshape(z.shape[0], 4, rows // 2, columns // 2, -1), 1, 0)
        even, odd = jnp.stack([p00, p01], 3), jnp.stack([p10, p11], 3)
        return jnp.stack([even, odd], 2).reshape(z.shape)

    return fixed(forward, inverse)


def rotate_parity() -> Bijector:
    """Rolls the last three of the four parts of `parity_order`.

    A half goes from one color of the checkerboard to every other column, to every other row, and back.
    """
    return fixed(lambda x: _roll(x, 1), lambda z: _roll(z, -1))


def _roll(x, parts):
    size = x.shape[1] // 4
    return jnp.concatenate([x[:, :size], jnp.roll(x[:, size:], parts * size, 1)], 1)
