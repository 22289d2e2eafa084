"""Monotone rational-quadratic splines."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genflow.bijectors.transforms import Transform


def rational_quadratic_spline(
    bins: int, bound: float, min_width: float = 1e-3, min_height: float = 1e-3, min_slope: float = 1e-3
) -> Transform:
    """A monotone spline of `bins` rational quadratics on [-bound, bound], the identity outside and at raw = 0.

    raw holds log-widths and log-heights of the bins (softmax) and the slopes at the inner knots (softplus).
    Differentiable in reverse mode only.

    Args:
      min_width, min_height: smallest side of a bin, as a fraction of the box; with min_slope they bound the slopes.

    >>> rational_quadratic_spline(4, 3.0).num_params
    11

    Raises:
      ValueError: bins, bound or a minimum leaves no spline.

    Reference: Durkan et al. (2019), Neural spline flows, arXiv:1906.04032, equations 4 to 8 and appendix A.
    """
    _check(bins, bound, min_width, min_height, min_slope)
    offset = math.log(math.expm1(1.0 - min_slope))  # softplus(offset) + min_slope = 1
    sides = tuple((2.0 * bound * least, 2.0 * bound * (1.0 - bins * least)) for least in (min_width, min_height))

    def corners(cumulated, index, axis):
        """Knots number `index` of the x axis (0) or the y axis (1), from the softmax cumulated up to there."""
        least, rest = sides[axis]
        return least * index + rest * cumulated - bound

    def bin_of(left, right, raw_slopes, index):
        (x0, x1), (y0, y1) = (
            (corners(left[axis], index, axis), corners(right[axis], index + 1, axis)) for axis in (0, 1)
        )
        d0, d1 = (min_slope + _softplus(r + offset) for r in raw_slopes)
        return x0, x1, y0, y1, d0, d1

    forward = _on_bins(lambda x, *table: _evaluate(x, *bin_of(*table)), corners, bins, 0)
    inverse = _on_bins(lambda y, *table: _solve(y, *bin_of(*table)), corners, bins, 1)
    return Transform(3 * bins - 1, _inside(forward, bound), _inside(inverse, bound))


def _check(bins, bound, min_width, min_height, min_slope):
    if bins < 1 or not bound > 0:
        raise ValueError(f"bins={bins} and bound={bound} must be above zero")
    if not (0 < min_width * bins < 1 and 0 < min_height * bins < 1 and 0 < min_slope < 1):
        raise ValueError(
            f"min_width={min_width} and min_height={min_height} must be above 0 and below 1 / bins = {1 / bins:.3g}, "
            f"min_slope={min_slope} above 0 and below 1"
        )


def _inside(function, bound):
    """Applies a function within (-bound, bound); outside x passes unchanged, and NaN stays NaN in both results."""

    def apply(raw, x):
        raw = jnp.broadcast_to(raw, (*x.shape, raw.shape[-1]))
        is_outside = jnp.abs(x) >= bound
        z, log_derivative = function(raw, jnp.where(is_outside, 0.0, x))
        return jnp.where(is_outside, x, z), jnp.where(is_outside, 0.0, log_derivative)

    return apply


def _evaluate(x, x0, x1, y0, y1, d0, d1):
    """Equations 4 and 5, with t = xi and r = 1 - xi each from its own end of the bin."""
    width, height = x1 - x0, y1 - y0
    t, r = jnp.maximum(x - x0, 0.0) / width, jnp.maximum(x1 - x, 0.0) / width
    s = height / width
    denominator = s + (d0 + d1 - 2.0 * s) * t * r
    y = y0 + height * (s * t + d0 * r) * t / denominator
    return y, _log_derivative(s, t, r, d0, d1)


def _log_derivative(s, t, r, d0, d1):
    ratio = s / (s + (d0 + d1 - 2.0 * s) * t * r)
    return jnp.log(ratio**2 * (d1 * t**2 + 2.0 * s * t * r + d0 * r**2))


def _solve(y, x0, x1, y0, y1, d0, d1):
    """The root of equations 6 to 8. With e = d_k (1 - theta) - d_k+1 theta the discriminant is a sum of squares.

    So it is never negative and loses nothing where it is small; t and r = 1 - t are both free of cancellation.
    """
    width, height = x1 - x0, y1 - y0
    a, b = jnp.maximum(y - y0, 0.0) / height, jnp.maximum(y1 - y, 0.0) / height  # theta, 1 - theta
    s = height / width
    e = d0 * b - d1 * a
    root = jnp.sqrt(e**2 + 4.0 * s**2 * a * b) + jnp.abs(e)
    # d_k+1 theta < d_k (1 - theta): t / r = 2 s theta / root; otherwise its mirror image
    t_part = jnp.where(e < 0, root, 2.0 * s * a)
    r_part = jnp.where(e < 0, 2.0 * s * b, root)
    t, r = t_part / (t_part + r_part), r_part / (t_part + r_part)
    return jnp.where(t < 0.5, x0 + width * t, x1 - width * r), -_log_derivative(s, t, r, d0, d1)


def _on_bins(function: Callable, corners: Callable, bins: int, axis: int) -> Callable:
    """function(u, left, right, raw_slopes, index) in the bin where u lies on this axis, from raw [..., 3 bins - 1].

    left and right are the cumulated softmaxes (widths, heights) at the two ends of the bin.

    The derivative is written out: that of a gather is a scatter, which on a CPU takes longer than everything else
    here, while softmax, cumulation and gather together have an elementwise one.
    """

    @jax.custom_vjp
    def apply(raw, u):
        return save(raw, u)[0]

    def save(raw, u):
        mass, cumulated = _masses(raw, bins)
        edges = corners(cumulated[..., axis, :-1], jnp.arange(1, bins), axis)
        index = (u[..., None] >= edges).sum(-1)
        picked = _pick(raw, cumulated, index)
        return function(u, *picked, index), (mass, u, picked, index)

    def derivative(saved, g):
        mass, u, picked, index = saved
        grad_u, grad_left, grad_right, grad_slopes = jax.vjp(lambda *args: function(*args, index), u, *picked)[1](g)
        left, right = (jnp.stack(side, -1) for side in picked[:2])
        grad_left, grad_right = jnp.stack(grad_left, -1), jnp.stack(grad_right, -1)
        mean = grad_left * left + grad_right * right
        j, k = jnp.arange(bins), index[..., None, None]
        grad_mass = jnp.where(j < k, (grad_left + grad_right)[..., None], jnp.where(j == k, grad_right[..., None], 0.0))
        grad_sides = (mass * (grad_mass - mean[..., None])).reshape(*u.shape, 2 * bins)
        return jnp.concatenate([grad_sides, _spread(*grad_slopes, index, bins)], -1), grad_u

    apply.defvjp(save, derivative)
    return apply


def _masses(raw, bins):
    """Softmax of the log-widths and the log-heights [..., 2, bins], and its cumulated sum as a small matrix product."""
    raw = raw[..., : 2 * bins].reshape(*raw.shape[:-1], 2, bins)
    mass = jnp.exp(raw - raw.max(-1, keepdims=True))
    cumulated = jnp.matmul(mass, jnp.triu(jnp.ones((bins, bins), mass.dtype)), precision="highest")
    total = cumulated[..., -1:]
    return mass / total, cumulated / total


def _softplus(x):
    """Half the price of jax.nn.softplus; what it loses far left is nothing beside the smallest slope."""
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


def _pick(raw, cumulated, index):
    """The table's entries at the two ends of bin `index`; raw slope 0 (slope 1) at the ends of the box."""
    bins = cumulated.shape[-1]
    is_first, is_last = index == 0, index == bins - 1
    below, here = (_take(cumulated, i[..., None]) for i in (jnp.maximum(index - 1, 0), index))
    left = tuple(jnp.where(is_first, 0.0, below[..., i]) for i in (0, 1))
    right = here[..., 0], here[..., 1]
    slopes = _take(raw, 2 * bins - 1 + index), _take(raw, jnp.minimum(2 * bins + index, raw.shape[-1] - 1))
    return left, right, (jnp.where(is_first, 0.0, slopes[0]), jnp.where(is_last, 0.0, slopes[1]))


def _take(table, index):
    index = jnp.broadcast_to(index, table.shape[:-1])
    return jnp.take_along_axis(table, index[..., None], -1)[..., 0]


def _spread(grad_first, grad_second, index, bins):
    """Derivatives with respect to the raw slopes at the inner knots 1 .. bins - 1."""
    knot, k = jnp.arange(1, bins), index[..., None]
    return jnp.where(knot == k, grad_first[..., None], jnp.where(knot == k + 1, grad_second[..., None], 0.0))
