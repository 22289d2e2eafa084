"""The smallest autoregressive network: each value from the few before it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genflow.core import CausalNetwork
from genflow.networks.mlp import mlp
from genflow.networks.precision import precise


@precise
def markov_mlp(order: int, widths: tuple[int, ...], bins: int) -> Callable[[int], CausalNetwork]:
    """p(x_j | x_1 .. x_(j-1)) = p(x_j | x_(j-d) .. x_(j-1)) from h_j = MLP(x_(j-1), ..., x_(j-d)), d = `order`.

    Builder num_params -> CausalNetwork on sites [B, L, 1]. The values enter one-hot, as zeros before the first site;
    the same perceptron serves every site.

    Reference: Bengio et al. (2003), A neural probabilistic language model, JMLR 3, section 2 (without the embedding).
    """

    def build(num_params):
        perceptron = mlp(widths)(num_params)

        def init(key, x, cond=None):
            return perceptron.init(key, jnp.zeros((1, order * bins)), None if cond is None else cond[:1])

        def apply(params, x, cond=None, key=None):
            padded = jnp.pad(x[..., 0], ((0, 0), (order, 0)), constant_values=-1)  # no value: no one in the one-hot
            before = jnp.stack([padded[:, order - d : padded.shape[1] - d] for d in range(1, order + 1)], -1)
            return evaluate(params, before, cond)

        def step(params, cache, x, i, cond=None):
            at = i - jnp.arange(1, order + 1)
            before = jnp.where(at >= 0, x[:, at, 0], -1)
            return evaluate(params, before[:, None], cond)[:, 0], cache

        def evaluate(params, before, cond):
            B, L, _ = before.shape
            h = jax.nn.one_hot(before, bins, dtype=jax.tree.leaves(params)[0].dtype).reshape(B * L, -1)
            c = None if cond is None else jnp.repeat(cond, L, axis=0)
            return perceptron.apply(params, h, c).reshape(B, L, -1)

        return CausalNetwork(init, apply, lambda params, num, cond=None: (), step, (order + 1, 1), order)

    return build
