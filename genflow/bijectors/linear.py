"""Linear bijectors over the last axis: the dimensions of a vector, the channels of every pixel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.linalg import lu_factor, lu_solve, solve_triangular

from genflow.bijectors.combinators import fixed
from genflow.bijectors.elementwise import channel_log_det
from genflow.bijectors.triangular import lower_inverse
from genflow.core import Bijector


def permutation(order: Sequence[int] | None = None) -> Bijector:
    """z[..., i] = x[..., order[i]]; a random order, drawn at initialization and then constant, unless one is given.

    >>> permutation((2, 0, 1)).forward({}, jnp.array([[5, 6, 7]]))[0].tolist()
    [[7, 5, 6]]

    Raises:
      ValueError: order does not name every entry of the last axis once.
    """
    if order is not None:
        return _given_permutation(tuple(order))

    def init(key, x, cond=None):
        params = {"order": jax.random.permutation(key, x.shape[-1]).astype(jnp.int32)}
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        return x[..., params["order"]], channel_log_det(jnp.zeros(1, x.dtype), x)

    def inverse(params, z, cond=None, key=None):
        return z[..., jnp.argsort(params["order"])], channel_log_det(jnp.zeros(1, z.dtype), z)

    return Bijector(init, forward, inverse)


def _given_permutation(order):
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"order={order} is not a permutation of 0 .. {len(order) - 1}")
    back = tuple(sorted(range(len(order)), key=order.__getitem__))

    def rearrange(x, order):
        if x.shape[-1] != len(order):
            raise ValueError(f"order={order} has {len(order)} entries, the last axis of x {x.shape[-1]}")
        return x[..., jnp.array(order)]

    return fixed(lambda x: rearrange(x, order), lambda z: rearrange(z, back))


def lu_linear() -> Bijector:
    """Z = L U x with unit lower L and upper U of diagonal exp(log_diag), the identity at the start.

    log |det| is sum(log_diag), O(c); the inverse is two triangular solves. With a `permutation` in front it can come
    near any matrix.

    Reference: Oliva et al. (2018), Transformation autoregressive networks, arXiv:1801.09819; Durkan et al. (2019),
    Neural spline flows, arXiv:1906.04032, section 4.1.
    """

    def init(key, x, cond=None):
        channels = x.shape[-1]
        zeros = jnp.zeros((channels, channels), x.dtype)
        return {"lower": zeros, "upper": zeros, "log_diag": jnp.zeros(channels, x.dtype)}, x

    def forward(params, x, cond=None, key=None):
        lower, upper = _triangles(params)
        return _per_pixel(x, lower @ upper), channel_log_det(params["log_diag"], x)

    def inverse(params, z, cond=None, key=None):
        lower, upper = _triangles(params)
        columns = solve_triangular(lower, _columns(z), lower=True, unit_diagonal=True)
        x = solve_triangular(upper, columns).T.reshape(z.shape)
        return x, -channel_log_det(params["log_diag"], z)

    return Bijector(init, forward, inverse)


def qr_linear() -> Bijector:
    """Z = Q R x, Q a product of Householder reflections, R upper triangular with diagonal exp(log_diag).

    A random rotation at the start; log |det| is sum(log_diag), O(c). The inverse is Q^T, then a triangular solve.

    Reference: Hoogeboom et al. (2019), Emerging convolutions for generative normalizing flows, arXiv:1901.11137
    (QR 1x1 convolutions).
    """

    def init(key, x, cond=None):
        channels = x.shape[-1]
        params = {
            "vectors": jax.random.normal(key, (channels, channels), x.dtype),
            "upper": jnp.zeros((channels, channels), x.dtype),
            "log_diag": jnp.zeros(channels, x.dtype),
        }
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        weight = _reflections(params["vectors"]) @ _upper(params, jnp.exp(params["log_diag"]))
        return _per_pixel(x, weight), channel_log_det(params["log_diag"], x)

    def inverse(params, z, cond=None, key=None):
        rotated = _per_pixel(z, _reflections(params["vectors"]).T)
        x = solve_triangular(_upper(params, jnp.exp(params["log_diag"])), _columns(rotated)).T.reshape(z.shape)
        return x, -channel_log_det(params["log_diag"], z)

    return Bijector(init, forward, inverse)


def householder(num_reflections: int) -> Bijector:
    """Z = H_1 ... H_n x with H_i = I - 2 v_i v_i^T / |v_i|^2: orthogonal, log-det 0.

    Raises:
      ValueError: num_reflections is below one.

    Reference: Tomczak and Welling (2016), Improving variational auto-encoders using Householder flow,
    arXiv:1611.09630.
    """
    if num_reflections < 1:
        raise ValueError(f"num_reflections={num_reflections} must be above zero")

    def draw(key, x):
        return {"vectors": jax.random.normal(key, (x.shape[-1], num_reflections), x.dtype)}

    return _orthogonal(draw, lambda params: _reflections(params["vectors"]))


def cayley() -> Bijector:
    """Z = (I + A)^-1 (I - A) x, A skew-symmetric and zero at the start: a rotation, log-det 0.

    Reference: Helfrich et al. (2018), Orthogonal recurrent neural networks with scaled Cayley transform,
    arXiv:1707.09520.
    """

    def draw(key, x):
        return {"skew": jnp.zeros((x.shape[-1], x.shape[-1]), x.dtype)}

    def rotation(params):
        skew = jnp.triu(params["skew"], 1)
        skew = skew - skew.T
        eye = jnp.eye(len(skew), dtype=skew.dtype)
        return lu_solve(lu_factor(eye + skew), eye - skew)

    return _orthogonal(draw, rotation)


def _orthogonal(draw, matrix):
    """The inverse is the transpose, so it is as accurate as the forward map."""

    def init(key, x, cond=None):
        params = draw(key, x)
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        return _per_pixel(x, matrix(params)), channel_log_det(jnp.zeros(1, x.dtype), x)

    def inverse(params, z, cond=None, key=None):
        return _per_pixel(z, matrix(params).T), channel_log_det(jnp.zeros(1, z.dtype), z)

    return Bijector(init, forward, inverse)


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
        lower, upper = _triangles(params, params["sign"])
        weight = (lower @ upper)[jnp.argsort(params["permutation"])]  # P (L U): row i of L U becomes row permutation[i]
        return _per_pixel(x, weight), channel_log_det(params["log_diag"], x)

    def inverse(params, z, cond=None, key=None):
        lower, upper = _triangles(params, params["sign"])
        weight_inverse = (lower_inverse(upper.T).T @ lower_inverse(lower))[:, jnp.argsort(params["permutation"])]
        return _per_pixel(z, weight_inverse), -channel_log_det(params["log_diag"], z)

    return Bijector(init, forward, inverse)


def conv1x1_plain() -> Bijector:
    """Invertible 1x1 convolution z = W x per pixel, W a free matrix that starts as a random rotation.

    log |det W| per pixel and the inverse come from one LU factorization with pivoting, O(c^3); the inverse solves its
    two triangular systems for every pixel and forms no inverse matrix.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, section 3.2, equation 9 and the official code.
    """

    def init(key, x, cond=None):
        params = {"weight": _random_rotation(key, x.shape[-1], x.dtype)}
        return params, forward(params, x)[0]

    def forward(params, x, cond=None, key=None):
        lu, _ = lu_factor(params["weight"])
        return _per_pixel(x, params["weight"]), channel_log_det(jnp.log(jnp.abs(jnp.diag(lu))), x)

    def inverse(params, z, cond=None, key=None):
        factors = lu_factor(params["weight"])
        x = lu_solve(factors, _columns(z)).T.reshape(z.shape)
        return x, -channel_log_det(jnp.log(jnp.abs(jnp.diag(factors[0]))), z)

    return Bijector(init, forward, inverse)


def _random_rotation(key, channels, dtype):
    return jnp.linalg.qr(jax.random.normal(key, (channels, channels), dtype))[0]


def _random_rotation_plu(key, channels, dtype):
    lu, _, permutation = jax.lax.linalg.lu(_random_rotation(key, channels, dtype))  # rotation[permutation] = L U
    diagonal = jnp.diag(lu)
    return {
        "lower": jnp.tril(lu, -1),
        "upper": jnp.triu(lu, 1),
        "log_diag": jnp.log(jnp.abs(diagonal)),
        "sign": jnp.sign(diagonal).astype(jnp.int32),
        "permutation": permutation,
    }


def _triangles(params, sign=1):
    diagonal = sign * jnp.exp(params["log_diag"])
    lower = jnp.tril(params["lower"], -1) + jnp.eye(diagonal.shape[0], dtype=diagonal.dtype)
    return lower, _upper(params, diagonal)


def _upper(params, diagonal):
    return jnp.triu(params["upper"], 1) + jnp.diag(diagonal)


def _reflections(vectors):
    """H_1 ... H_n = I - V S^-1 V^T, S upper triangular: one solve instead of n steps (Joffrain et al. 2006, UT form).

    vectors: [c, n], one reflection in each column.
    """
    unit = vectors / jnp.linalg.norm(vectors, axis=0)
    gram = jnp.triu(unit.T @ unit, 1) + 0.5 * jnp.eye(unit.shape[1], dtype=unit.dtype)
    return jnp.eye(len(unit), dtype=unit.dtype) - unit @ solve_triangular(gram, unit.T)


def _columns(x):
    """[c, B H W]: right-hand sides of a linear system."""
    return x.reshape(-1, x.shape[-1]).T


def _per_pixel(x, weight):
    """z[..., i] = sum_j weight[i, j] x[..., j], as one 2-D matrix product: fast forward and backward everywhere."""
    return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(x.shape)
