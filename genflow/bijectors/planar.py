"""Planar flows: vectors are moved along one direction, by a function of another."""

import math

import jax
import jax.numpy as jnp

from genflow.core import Bijector, sum_event

MIN_SLOPE = 1e-4  # least derivative along w; at 0 the map would not be one-to-one


def planar() -> Bijector:
    """z = x + u' tanh(w.x + b) of vectors, log-det = log |1 + (w.u') (1 - tanh^2)|; the identity at the start.

    u' is u, changed along w so that w.u' > -1. w, u and b are learned, and linear functions of cond beside that, where
    it is given. There is no closed inverse: it bisects the one number w.x, as often as the mantissa has bits.

    Reference: Rezende and Mohamed (2015), Variational inference with normalizing flows, arXiv:1505.05770, equations 10
    to 12, and appendix A.1 for w.u' = m(w.u); m is moved here such that m(0) = 0.
    """

    def init(key, x, cond=None):
        dims = x.shape[-1]
        w = jax.random.normal(key, (dims,), x.dtype) / math.sqrt(dims)
        params = {"raw": jnp.concatenate([w, jnp.zeros(dims + 1, x.dtype)])}
        if cond is None:
            return params, x
        kernel = jnp.zeros((cond.shape[-1], 2 * dims + 1), x.dtype)
        return params | {"cond": kernel}, x

    def forward(params, x, cond=None, key=None):
        w, u, b, slope = _direction(params, cond, x)
        t = jnp.tanh(_dot(w, x) + b)
        return x + u * t, _log_derivative(t, slope)

    def inverse(params, z, cond=None, key=None):
        w, u, b, slope = _direction(params, cond, z)
        a = _solve(_dot(w, z) + b, slope - 1)
        t = jnp.tanh(a)
        return z - u * t, -_log_derivative(t, slope)

    return Bijector(init, forward, inverse)


def _dot(a, b):
    return (a * b).sum(-1, keepdims=True)


def _direction(params, cond, x):
    """w, u' and b [B or 1, ...], and the slope 1 + w.u' > 0, which is exact where w.u' is near -1."""
    raw, dims = params["raw"][None], x.shape[-1]
    if cond is not None:
        raw = raw + cond.astype(raw.dtype) @ params["cond"]
    w, u, b = raw[:, :dims], raw[:, dims : 2 * dims], raw[:, 2 * dims :]
    product = _dot(w, u)
    slope = MIN_SLOPE + jax.nn.softplus(product + math.log(math.expm1(1 - MIN_SLOPE)))
    along = (slope - 1 - product) / (_dot(w, w) + jnp.finfo(w.dtype).tiny)
    return w, u + along * w, b, slope


def _log_derivative(t, slope):
    return sum_event(jnp.log(t**2 + (1 - t**2) * slope))


def _solve(c, s):
    """a with a + s tanh(a) = c, for s > -1; Newton's last step makes it exact, and differentiable."""

    def halve(i, bracket):
        low, high = bracket
        middle = (low + high) / 2
        is_low = middle + s * jnp.tanh(middle) < c
        return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

    around, steps = jnp.broadcast_to(jnp.abs(s), c.shape), jnp.finfo(c.dtype).nmant + 4
    low, high = jax.lax.fori_loop(0, steps, halve, jax.lax.stop_gradient((c - around, c + around)))
    near = (low + high) / 2
    t = jnp.tanh(near)
    return near - (near + s * t - c) / (1 + s * (1 - t**2))
