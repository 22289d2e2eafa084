"""Elementwise bijectors."""

import math

import jax.numpy as jnp

from genflow.core import Bijector


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
