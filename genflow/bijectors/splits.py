"""How a coupling cuts x into the part that passes and the part that is transformed: splits are data."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Split(NamedTuple):
    """How x is cut into the part that passes and the part that is transformed, and put together again.

    split(x) -> (passed, changed), merge(passed, changed) -> x, select(network_output) -> at the positions of changed.
    """

    split: Callable[[Array], tuple[Array, Array]]
    merge: Callable[[Array, Array], Array]
    select: Callable[[Array], Array] = lambda output: output


def halves(swap: bool = False, axis: int = -1) -> Split:
    """First half of an axis passes, the second is transformed; `swap` exchanges the two.

    >>> halves().split(jnp.arange(4)[None])[0].tolist()
    [[0, 1]]

    Raises:
      ValueError: the axis is not the last, which networks need not keep, and has an odd size.
    """

    def split(x):
        size = _first_size(x, axis)
        first = jax.lax.slice_in_dim(x, 0, size, axis=axis)
        second = jax.lax.slice_in_dim(x, size, None, axis=axis)
        return _ordered(first, second, swap)

    def merge(passed, changed):
        return jnp.concatenate(_ordered(passed, changed, swap), axis)

    return Split(split, merge)


def alternating(swap: bool = False, axis: int = -1) -> Split:
    """Entries 0, 2, 4 ... of an axis pass, entries 1, 3, 5 ... are transformed; `swap` exchanges the two.

    >>> alternating().split(jnp.arange(4)[None])[0].tolist()
    [[0, 2]]

    Raises:
      ValueError: the axis is not the last, which networks need not keep, and has an odd size.

    Reference: Dinh et al. (2015), NICE, arXiv:1410.8516, section 5.1 (odd and even components).
    """

    def split(x):
        _first_size(x, axis)
        first = jax.lax.slice_in_dim(x, 0, None, 2, axis)
        second = jax.lax.slice_in_dim(x, 1, None, 2, axis)
        return _ordered(first, second, swap)

    def merge(passed, changed):
        first, second = (jnp.moveaxis(part, axis, -1) for part in _ordered(passed, changed, swap))
        size = first.shape[-1] + second.shape[-1]
        second = jnp.pad(second, [(0, 0)] * (second.ndim - 1) + [(0, size % 2)])
        together = jnp.stack([first, second], -1).reshape(*first.shape[:-1], -1)
        return jnp.moveaxis(together[..., :size], -1, axis)

    return Split(split, merge)


def _ordered(first, second, swap):
    return (second, first) if swap else (first, second)


def _first_size(x, axis):
    size = x.shape[axis]
    if size % 2 and axis not in (-1, x.ndim - 1):
        raise ValueError(f"axis={axis} of size {size} has no equal halves; split an axis of even size")
    return (size + 1) // 2


def checkerboard(swap: bool = False, masked: bool = False) -> Split:
    """Pixels [B, H, W, C] with even row + column pass, the others are transformed; `swap` exchanges the two.

    Args:
      masked: False: both parts are [B, H, W / 2, C], a pixel's neighbours closed up within its row (Flow++). True:
        the part that passes keeps its resolution, with zeros at the other pixels, and the network's output is read
        at those (Real NVP).

    >>> [part.shape for part in checkerboard(masked=True).split(jnp.zeros((1, 2, 4, 3)))]
    [(1, 2, 4, 3), (1, 2, 2, 3)]

    Raises:
      ValueError: the width is odd.

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, figure 3; Ho et al. (2019),
    Flow++, arXiv:1902.00275, the official code.
    """

    def cut(x):
        return _ordered(*_cut_checkerboard(x), swap)

    def join(passed, changed):
        return _join_checkerboard(*_ordered(passed, changed, swap))

    def split_masked(x):
        passed, changed = cut(x)
        return join(passed, jnp.zeros_like(changed)), changed

    if masked:
        return Split(split_masked, lambda passed, changed: join(cut(passed)[0], changed), lambda out: cut(out)[1])
    return Split(cut, join)


def _cut_checkerboard(x):
    B, H, W, C = x.shape
    if W % 2:
        raise ValueError(f"checkerboard: image of {H}x{W} has an odd width; pad it to an even one")
    pairs = x.reshape(B, H, W // 2, 2, C)
    return _exchange_in_odd_rows(pairs[..., 0, :], pairs[..., 1, :])


def _join_checkerboard(first, second):
    B, H, half, C = first.shape
    return jnp.stack(_exchange_in_odd_rows(first, second), 3).reshape(B, H, 2 * half, C)


def _exchange_in_odd_rows(left, right):
    is_odd = (jnp.arange(left.shape[1]) % 2 == 1)[:, None, None]
    return jnp.where(is_odd, right, left), jnp.where(is_odd, left, right)
