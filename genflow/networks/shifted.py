"""Convolutions of images that see no row below and, where they are shifted right too, no column to the right.

The shift is in the kernel's shape: two rows, and three columns (down-shifted: around the output) or two (down-right
shifted: up to the output). Changes of resolution are matrix products around a rearrangement, so that their gradients
are fast on every backend, inside and outside scans.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genflow.networks.conv import conv2d


def shifted_conv(
    x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"], above: int = 1
) -> Float[Array, "B h W O"]:
    """Convolution in which output (r, c) sees input rows up to r and columns up to c + (kw - 1) // 2.

    Args:
      above: rows of zeros above the image; 0 where x brings its own.
    """
    return conv2d(x, kernel, ((above, 0), _sides(kernel)))


def halve(x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"], above: int = 1) -> Float[Array, "B h w O"]:
    """Every second row and column of `shifted_conv`: output (r, c) sees what that sees at (2 r, 2 c)."""
    return halve_windows(jnp.pad(x, ((0, 0), (above, 0), _sides(kernel), (0, 0))), kernel)


def halve_windows(x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"]) -> Float[Array, "B h w O"]:
    """Convolution with stride 2, without padding."""
    kh, kw, _, features = kernel.shape
    rows, columns = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    taps = [x[:, i : i + rows : 2, j : j + columns : 2] for i in range(kh) for j in range(kw)]
    return conv2d(jnp.concatenate(taps, axis=-1), kernel.reshape(1, 1, -1, features))


def double(x: Float[Array, "B h w I"], kernel: Float[Array, "2 kw I O"]) -> Float[Array, "B H W O"]:
    """Transposed convolution of stride 2: output (2 r + a, 2 c + b - (kw - 1) // 2) sums kernel[a, b] x(r, c).

    Output (r, c) sees input rows up to r / 2, and columns up to (c + kw - 2) / 2.
    """
    B, h, w, _ = x.shape
    kh, kw, features_in, features = kernel.shape
    flat = kernel.transpose(2, 0, 1, 3).reshape(1, 1, features_in, -1)
    taps = conv2d(x, flat).reshape(B, h, w, kh, kw, features)
    first = (kw - 1) // 2
    even, odd = taps[..., first, :], taps[..., first + 1, :]
    if first:
        odd += jnp.pad(taps[:, :, 1:, :, 0], ((0, 0), (0, 0), (0, 1), (0, 0), (0, 0)))
    return jnp.stack([even, odd], axis=4).transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * h, 2 * w, features)


def pixels(x: Int[Array, "B L C"], width: int, rows: Int[Array, " R"], columns: Int[Array, " S"], scale: float):
    """Rows and columns of an image of `width` columns as floats [B, R, S, C + 1]: scale * x - 1, and ones.

    Zeros, the ones too, where the image ends.
    """
    height = x.shape[1] // width
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    at = jnp.clip(rows, 0, height - 1)[:, None] * width + jnp.clip(columns, 0, width - 1)
    values = scale * x[:, at] - 1
    marked = jnp.concatenate([values, jnp.ones((*values.shape[:3], 1), values.dtype)], axis=-1)
    return jnp.where(inside[..., None], marked, 0)


def _sides(kernel):
    columns = kernel.shape[1]
    return columns // 2, (columns - 1) // 2
