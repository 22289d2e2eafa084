"""Autoregressive bijectors: dimension d is transformed with parameters that the dimensions before it set."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genflow.bijectors.combinators import chain, invert
from genflow.bijectors.linear import permutation
from genflow.bijectors.transforms import Transform, tanh_scale
from genflow.core import Bijector, sum_event
from genflow.networks.made import MaskedNetwork

CHUNK = 2048  # rows


def masked_autoregressive(transform: Transform, network: Callable[[int], MaskedNetwork]) -> Bijector:
    """z_d = transform(network(x_1 .. x_{d-1}, cond), x_d) of vectors: triangular Jacobian, O(D) log-det.

    forward (density) is one evaluation of the network. inverse (sampling) goes through the dimensions in order and
    reuses what the network computed for the earlier ones: as much arithmetic as one evaluation, in D small steps. Its
    derivative keeps the network's state at every step, D times the memory of forward's. `invert` of it is an inverse
    autoregressive flow: fast sampling, slow density. For another order of the dimensions put a `permutation` or `flip`
    in front.

    Reference: Papamakarios et al. (2017), Masked autoregressive flow for density estimation, arXiv:1705.07057,
    section 3.1; Kingma et al. (2016), Improving variational inference with inverse autoregressive flow,
    arXiv:1606.04934.
    """
    masked = network(transform.num_params)

    def init(key, x, cond=None):
        params = masked.init(key, x, cond)
        return params, forward(params, x, cond)[0]

    def forward(params, x, cond=None, key=None):
        z, log_derivative = transform.forward(masked.apply(params, x, cond, key), x)
        return z, sum_event(log_derivative)

    def inverse(params, z, cond=None, key=None):
        if z.shape[0] <= CHUNK:
            return whole(params, z, cond)
        chunked = functools.partial(_in_chunks, whole)
        return jax.lax.platform_dependent(params, z, cond, cpu=chunked, default=whole)

    def whole(params, z, cond):
        columns = z.T

        def draw(d, raw, log_det):
            z_d = jax.lax.dynamic_index_in_dim(columns, d, keepdims=False)
            x_d, log_derivative = transform.inverse(raw, z_d)
            return x_d, log_det + log_derivative

        start = jnp.zeros(z.shape[0], jnp.promote_types(z.dtype, jnp.float32))
        return masked.generate(params, draw, start, z, cond)

    return Bijector(init, forward, inverse)


def _in_chunks(function, params, z, cond):
    """Runs function(params, z, cond) on at most CHUNK rows at a time, so that what it keeps stays in the cache."""
    num = -(-z.shape[0] // CHUNK)
    size = -(-z.shape[0] // num)

    def cut(a):
        return jnp.pad(a, ((0, num * size - a.shape[0]), (0, 0))).reshape(num, size, -1)

    x, log_det = jax.lax.map(lambda chunk: function(params, *chunk), jax.tree.map(cut, (z, cond)))
    return x.reshape(num * size, -1)[: z.shape[0]], log_det.reshape(-1)[: z.shape[0]]


def gaussian(bound: float = 3.0) -> Transform:
    """X = mu + exp(alpha) z with alpha = bound * tanh(raw / bound), raw and mu interleaved on the last axis.

    alpha is bounded because sampling multiplies one exp(alpha) of a new, perhaps never seen, input on another: with
    free log-scales a flow whose densities are right to 1e-5 gives samples that overflow. What remains is mu: it is
    bounded too where the network's activation is (tanh), not where it grows with x (relu).

    Reference: Papamakarios et al. (2017), arXiv:1705.07057, equations 3 and 4 (alpha is not bounded there).
    """
    log_scale = tanh_scale(bound)

    def forward(raw, x):
        mu, alpha = raw[..., 0], log_scale(raw[..., 1])
        return (x - mu) * jnp.exp(-alpha), -alpha

    def inverse(raw, z):
        mu, alpha = raw[..., 0], log_scale(raw[..., 1])
        return mu + jnp.exp(alpha) * z, alpha

    return Transform(2, forward, inverse)


def forget_gate(bias: float = 2.0) -> Transform:
    """Z = sigma x + (1 - sigma) m with sigma = sigmoid(raw + bias), m and raw interleaved on the last axis.

    The step of an inverse autoregressive flow: with a masked network `forward` is the direction that draws, all
    dimensions at once. A bias above zero lets x pass at the start.

    Reference: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow,
    arXiv:1606.04934, section 4 (the numerically stable form).
    """

    def forward(raw, x):
        log_sigma = jax.nn.log_sigmoid(raw[..., 1] + bias)
        rest = jax.nn.sigmoid(-raw[..., 1] - bias)
        return jnp.exp(log_sigma) * x + rest * raw[..., 0], log_sigma

    def inverse(raw, z):
        log_sigma = jax.nn.log_sigmoid(raw[..., 1] + bias)
        rest = jax.nn.sigmoid(-raw[..., 1] - bias)
        return (z - rest * raw[..., 0]) * jnp.exp(-log_sigma), -log_sigma

    return Transform(2, forward, inverse)


def gaussian_autoregressive(
    network: Callable[[int], MaskedNetwork], order: tuple[int, ...] | None = None, bound: float = 3.0
) -> Bijector:
    """x_j = mu_j(x_before) + exp(alpha_j(x_before)) z_j, 'before' in the sense of `order`; z keeps the places of x.

    Args:
      order: the dimensions from the first to the last; as they are unless given.
      bound: of |alpha|, see `gaussian`.

    >>> from genflow.networks import made
    >>> gaussian_autoregressive(made((8,)), order=(2, 0, 1)).init(jax.random.key(0), jnp.zeros((1, 3)))[1].shape
    (1, 3)

    Reference: Kingma et al. (2016), arXiv:1606.04934, equations 3 and 4.
    """
    layer = masked_autoregressive(gaussian(bound), network)
    if order is None:
        return layer
    return chain(order=permutation(order), layer=layer, back=invert(permutation(order)))
