"""Autoregressive flows over tokens: a causal transformer sets each token's transform from those before it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from genflow.bijectors.transforms import Transform
from genflow.core import Bijector, sum_event


def token_autoregressive(transform: Transform, network: Callable) -> Bijector:
    """z_i = transform(network(x_1 .. x_{i-1}, cond), x_i) for tokens x [B, N, C], N >= 2; TarFlow's with `affine`.

    The raw parameters of x_1 are zero, as in the official code. Density is one pass; the inverse goes token by token
    with a cache of keys and values, so that all its steps together compute each token's features once, not N times.

    With a bounded log-scale samples stay finite for any finite weights, because the transformer's last norm bounds
    the shifts too; the official code bounds neither. In a stack with memory='invert' every backward pass pays for the
    sequential inverse.

    Args:
      network: builds a causal `networks.Transformer` for a number of output features.

    Reference: Zhai et al. (2024), Normalizing flows are capable generative models, arXiv:2412.06329, section 2.2.
    """

    def built(x):
        return network(transform.num_params * x.shape[-1])

    def init(key, x, cond=None):
        params = built(x).init(key, x[:, :-1], cond)
        return params, forward(params, x, cond)[0]

    def forward(params, x, cond=None, key=None):
        raw = checkpoint_name(built(x).apply(params, x[:, :-1], cond, key), "conditioner")
        raw = jnp.pad(raw, ((0, 0), (1, 0), (0, 0))).reshape(*x.shape, transform.num_params)
        z, log_derivative = transform.forward(raw, x)
        return z, sum_event(log_derivative)

    def inverse(params, z, cond=None, key=None):
        def invert_token(raw, z_i):
            return transform.inverse(raw.reshape(*z_i.shape, transform.num_params), z_i)

        def step(i, carry):
            x, log_derivatives, cache = carry
            raw, cache = built(z).step(params, x[:, i - 1], i - 1, cache, cond)
            x_i, log_derivative = invert_token(raw, z[:, i])
            return x.at[:, i].set(x_i), log_derivatives.at[:, i].set(log_derivative), cache

        x_1, log_derivative = invert_token(jnp.zeros((*z[:, 0].shape, transform.num_params), z.dtype), z[:, 0])
        start = jnp.zeros_like(z).at[:, 0].set(x_1), jnp.zeros_like(z).at[:, 0].set(log_derivative)
        cache = built(z).init_cache(params, z.shape[0])
        x, log_derivatives, _ = jax.lax.fori_loop(1, z.shape[1], step, (*start, cache))
        return x, sum_event(log_derivatives)

    return Bijector(init, forward, inverse)
