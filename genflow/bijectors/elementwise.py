"""Elementwise bijectors."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from genflow.bijectors.transforms import Transform, affine
from genflow.core import Bijector, sum_event


def actnorm(scale_factor: float = 3.0) -> Bijector:
    """Z = (x + b) * exp(scale_factor * s) per channel; b and s from the first batch so that z has mean 0, variance 1.

    `scale_factor` multiplies the learning rate of the log-scale.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, section 3.1.
    """

    def init(key, x, cond=None):
        axes = tuple(range(x.ndim - 1))
        std = jnp.std(x, axes)
        params = {"bias": -jnp.mean(x, axes), "log_scale": -jnp.log(std + 1e-6) / scale_factor}
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        log_scale = scale_factor * params["log_scale"]
        return (x + params["bias"]) * jnp.exp(log_scale), channel_log_det(log_scale, x)

    def inverse(params, z, cond=None, key=None):
        log_scale = scale_factor * params["log_scale"]
        return z * jnp.exp(-log_scale) - params["bias"], -channel_log_det(log_scale, z)

    return Bijector(init, forward, inverse)


def channel_log_det(log_scale, x):
    """Log-det [B] of a map that scales every pixel's channels by exp(log_scale)."""
    per_pixel = log_scale.astype(jnp.promote_types(log_scale.dtype, jnp.float32)).sum()
    return jnp.full(x.shape[0], math.prod(x.shape[1:-1]) * per_pixel)


def channel_affine() -> Bijector:
    """Z = (x - mean) * exp(-log_std) per channel, identity at the start: a learned Gaussian prior on top of a flow.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, the learned top prior of the official code.
    """

    def init(key, x, cond=None):
        zero = jnp.zeros(x.shape[-1], x.dtype)
        return {"mean": zero, "log_std": zero}, x

    def forward(params, x, cond=None, key=None):
        return (x - params["mean"]) * jnp.exp(-params["log_std"]), -channel_log_det(params["log_std"], x)

    def inverse(params, z, cond=None, key=None):
        return z * jnp.exp(params["log_std"]) + params["mean"], channel_log_det(params["log_std"], z)

    return Bijector(init, forward, inverse)


def elementwise(transform: Transform) -> Bijector:
    """z_i = transform(raw_i, x_i), raw learned for every dimension and zero at the start: no network.

    >>> elementwise(affine(lambda s: s)).init(jax.random.key(0), jnp.zeros((1, 3)))[0]["raw"].shape
    (3, 2)
    """

    def init(key, x, cond=None):
        params = {"raw": jnp.zeros((*x.shape[1:], transform.num_params), x.dtype)}
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        z, log_derivative = transform.forward(params["raw"][None], x)
        return z, sum_event(jnp.broadcast_to(log_derivative, x.shape))

    def inverse(params, z, cond=None, key=None):
        x, log_derivative = transform.inverse(params["raw"][None], z)
        return x, sum_event(jnp.broadcast_to(log_derivative, z.shape))

    return Bijector(init, forward, inverse)


def shift_scale() -> Bijector:
    """z_i = (x_i + shift_i) * exp(log_scale_i) with numbers of its own for every dimension, the identity at the start.

    Reference: Dinh et al. (2015), NICE, arXiv:1410.8516, section 3.3 (diagonal scaling).
    """
    return elementwise(affine(lambda log_scale: log_scale))


def _pointwise(forward: Callable[[Array], tuple], inverse: Callable[[Array], tuple]) -> Bijector:
    """A bijector without parameters from x -> (z, log_derivative) and z -> (x, log_derivative)."""

    def summed(transformed):
        return transformed[0], sum_event(transformed[1])

    return Bijector(
        lambda key, x, cond=None: ({}, forward(x)[0]),
        lambda params, x, cond=None, key=None: summed(forward(x)),
        lambda params, z, cond=None, key=None: summed(inverse(z)),
    )


def leaky_relu(slope: float = 0.01) -> Bijector:
    """Z = x for x >= 0, slope * x below.

    Reference: Maas et al. (2013), Rectifier nonlinearities improve neural network acoustic models, section 2.
    """
    _check_slope(slope)
    log_slope = math.log(slope)
    return _pointwise(
        lambda x: (jnp.where(x < 0, slope * x, x), jnp.where(x < 0, log_slope, 0.0).astype(x.dtype)),
        lambda z: (jnp.where(z < 0, z / slope, z), jnp.where(z < 0, -log_slope, 0.0).astype(z.dtype)),
    )


def smooth_leaky_relu(slope: float = 0.1) -> Bijector:
    """Z = ((1 + slope) x + (1 - slope) (sqrt(x^2 + 1) - 1)) / 2: slope `slope` far left, 1 far right, f(0) = 0.

    The inverse is the root of a quadratic. Both directions are written without cancellation in either tail.

    Reference: the leaky form of Barron (2021), Squareplus, arXiv:2112.11687, equation 1.
    """
    _check_slope(slope)
    p, q = (1 + slope) / 2, (1 - slope) / 2

    def forward(x):
        a = jnp.abs(x)
        root = jnp.hypot(a, 1.0)
        bend = a * (a / (root + 1))  # sqrt(x^2 + 1) - 1
        z = jnp.where(x < 0, slope * x - q * ((a + bend) / (root + a)), p * x + q * bend)
        return z, log_slope_at(x)

    def log_slope_at(x):
        a = jnp.abs(x)
        root = jnp.hypot(a, 1.0)
        return jnp.log(jnp.where(x < 0, slope + q / (root * (root + a)), p + q * (a / root)))

    def inverse(z):
        w = z + q
        root = jnp.hypot(w, math.sqrt(slope))
        right = z * ((z + 2 * q) / (p * jnp.abs(w) + q * root))
        x = jnp.where(w > 0, right, (p * w - q * root) / slope)
        return x, -log_slope_at(x)

    return _pointwise(forward, inverse)


def _check_slope(slope):
    if not 0 < slope < 1:
        raise ValueError(f"slope={slope} must be above 0 and below 1")


def logit(alpha: float) -> Bijector:
    """Z = log(p / (1 - p)) with p = alpha + (1 - 2 alpha)(x + 1/2): images in [-1/2, 1/2] to all of R, no end infinite.

    p and 1 - p are each computed from their own end, so both keep all their digits. `invert(logit(alpha))` is the
    sigmoid: any z is somebody's, and gives |x| up to 1 / (2 - 4 alpha). An x beyond that gives NaN, nothing is clipped.

    Raises:
      ValueError: alpha is not in (0, 1/2).

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, section 4.1 (alpha = 0.05);
    Papamakarios et al. (2017), MAF, arXiv:1705.07057, the official code (alpha = 1e-6 on MNIST).
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha={alpha} must be above 0 and below 1/2")
    width = 1 - 2 * alpha

    def forward(x):
        log_p, log_q = jnp.log(alpha + width * (x + 0.5)), jnp.log(alpha + width * (0.5 - x))
        return log_p - log_q, math.log(width) - log_p - log_q

    def inverse(z):
        log_derivative = jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - math.log(width)
        return jnp.tanh(z / 2) / (2 * width), log_derivative

    return _pointwise(forward, inverse)
