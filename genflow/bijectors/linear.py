"""Linear bijectors over the channels."""

import jax
import jax.numpy as jnp

from genflow.bijectors.elementwise import channel_log_det
from genflow.core import Bijector


def conv1x1() -> Bijector:
    """Invertible 1x1 convolution z = W x per pixel with W = P L (U + diag(sign * exp(log_diag))).

    P and sign are integer constants from a random rotation; log |det W| per pixel is sum(log_diag), O(c). The inverse
    is two triangular solves of a c x c system, then a matrix product.

    >>> sorted(conv1x1().init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))[0])
    ['log_diag', 'lower', 'permutation', 'sign', 'upper']

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, section 3.2, equations 9 to 11.
    """

    def init(key, x, cond=None):
        params = _random_rotation_plu(key, x.shape[-1], x.dtype)
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        lower, upper = _triangles(params)
        weight = (lower @ upper)[jnp.argsort(params["permutation"])]  # P (L U): row i of L U becomes row permutation[i]
        return _per_pixel(x, weight), channel_log_det(params["log_diag"], x)

    def inverse(params, z, cond=None, key=None):
        lower, upper = _triangles(params)
        eye = jnp.eye(z.shape[-1], dtype=z.dtype)
        lower_inverse = jax.scipy.linalg.solve_triangular(lower, eye, lower=True, unit_diagonal=True)
        weight_inverse = jax.scipy.linalg.solve_triangular(upper, lower_inverse)[:, jnp.argsort(params["permutation"])]
        return _per_pixel(z, weight_inverse), -channel_log_det(params["log_diag"], z)

    return Bijector(init, forward, inverse)


def _random_rotation_plu(key, channels, dtype):
    rotation = jnp.linalg.qr(jax.random.normal(key, (channels, channels), dtype))[0]
    lu, _, permutation = jax.lax.linalg.lu(rotation)  # rotation[permutation] = L U
    diagonal = jnp.diag(lu)
    return {
        "lower": jnp.tril(lu, -1),
        "upper": jnp.triu(lu, 1),
        "log_diag": jnp.log(jnp.abs(diagonal)),
        "sign": jnp.sign(diagonal).astype(jnp.int32),
        "permutation": permutation,
    }


def _triangles(params):
    diagonal = params["sign"] * jnp.exp(params["log_diag"])
    lower = jnp.tril(params["lower"], -1) + jnp.eye(diagonal.shape[0], dtype=diagonal.dtype)
    return lower, jnp.triu(params["upper"], 1) + jnp.diag(diagonal)


def _per_pixel(x, weight):
    """z[..., i] = sum_j weight[i, j] x[..., j], as one 2-D matrix product: fast forward and backward everywhere."""
    return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(x.shape)
