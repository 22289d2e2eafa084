"""Perceptrons with the uniform weights of Glorot and Bengio (2010), whose hidden layers may be used alone."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from genflow.core import Network
from genflow.networks.precision import precise
from genflow.networks.pure import pure

GLOROT = nn.initializers.glorot_uniform()


class Hidden(nn.Module):
    """Flattens the event and applies hidden layers: dense, layer normalization if asked, activation."""

    widths: tuple[int, ...]
    activation: Callable
    normalize: bool = False

    @nn.compact
    def __call__(self, x, cond=None):
        h = x.reshape(x.shape[0], -1)
        for width in self.widths:
            h = nn.Dense(width, kernel_init=GLOROT, param_dtype=x.dtype)(h)
            h = self.activation(nn.LayerNorm(param_dtype=x.dtype)(h) if self.normalize else h)
        return h


class Heads(nn.Module):
    """Linear maps side by side in one matrix, each initialized as if it were alone."""

    features: int
    num: int

    @nn.compact
    def __call__(self, x, cond=None):
        def init(key, shape, dtype):
            keys = jax.random.split(key, self.num)
            return jnp.concatenate([GLOROT(k, (shape[0], self.features), dtype) for k in keys], axis=1)

        return nn.Dense(self.num * self.features, kernel_init=init, param_dtype=x.dtype)(x)


@precise
def hidden_layers(widths: tuple[int, ...], activation: Callable, normalize: bool = False) -> Network:
    """Perceptron [B, *event] -> [B, widths[-1]] that has no linear last layer."""
    return pure(Hidden(tuple(widths), activation, normalize))


@precise
def heads(features: int, num: int = 1) -> Network:
    """`num` linear maps [B, D] -> [B, num * features]."""
    return pure(Heads(features, num))


@precise
def glorot_mlp(
    features: int, widths: tuple[int, ...], activation: Callable, num: int = 1, normalize: bool = False
) -> Network:
    """Hidden layers, then `num` linear heads: [B, *event] -> [B, num * features]."""
    hidden, last = hidden_layers(widths, activation, normalize), heads(features, num)

    def init(key, x, cond=None):
        key_hidden, key_heads = jax.random.split(key)
        params = hidden.init(key_hidden, x)
        return {"hidden": params, "heads": last.init(key_heads, hidden.apply(params, x))}

    def apply(params, x, cond=None, key=None):
        return last.apply(params["heads"], hidden.apply(params["hidden"], x))

    return Network(init, apply)
