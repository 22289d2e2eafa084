"""Networks gated by time: the dynamics of continuous flows."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genflow.core import Network
from genflow.networks.conv import conv2d
from genflow.networks.lipschitz import dense


def concatsquash_mlp(widths: tuple[int, ...]) -> Callable[[int], Network]:
    """Builder of perceptrons of layers (h W + b) * sigmoid(c G + g) + c S with tanh between; c is cond, time in it.

    Reference: Grathwohl et al. (2019), FFJORD, arXiv:1810.01367, the official code's ConcatSquash layer.
    """

    def kernel_shapes(x, features):
        sizes = (math.prod(x.shape[1:]), *widths, features)
        return tuple(zip(sizes[:-1], sizes[1:], strict=True))

    return _builder(dense, kernel_shapes, jnp.tanh, lambda x: x.reshape(x.shape[0], -1))


def concatsquash_conv(widths: tuple[int, ...]) -> Callable[[int], Network]:
    """Builder of 3x3 convolutions [B, H, W, C] -> [B, H, W, features], gated as in `concatsquash_mlp`, with softplus.

    Reference: Grathwohl et al. (2019), FFJORD, arXiv:1810.01367, the official code's ConcatSquash convolution.
    """

    def kernel_shapes(x, features):
        sizes = (x.shape[-1], *widths, features)
        return tuple((3, 3, *io) for io in zip(sizes[:-1], sizes[1:], strict=True))

    return _builder(conv2d, kernel_shapes, jax.nn.softplus, lambda x: x)


def _builder(linear, kernel_shapes, activation, prepare):
    """The last layer starts at zero, so that a flow starts as the identity."""

    def build(features):
        def init(key, x, cond):
            shapes = kernel_shapes(x, features)
            keys = jax.random.split(key, len(shapes))
            layers = [_layer_init(k, s, cond.shape[-1], x.dtype) for k, s in zip(keys, shapes, strict=True)]
            layers[-1]["kernel"] = jnp.zeros_like(layers[-1]["kernel"])
            return {f"layer{i}": layer for i, layer in enumerate(layers)}

        def apply(params, x, cond, key=None):
            h = prepare(x)
            for i in range(len(params)):
                h = _layer(params[f"layer{i}"], linear, activation(h) if i else h, cond)
            return h

        return Network(init, apply)

    return build


def _layer_init(key, shape, cond_dims, dtype):
    zero = jnp.zeros(shape[-1:], dtype)
    by_cond = jnp.zeros((cond_dims, shape[-1]), dtype)
    kernel = jax.nn.initializers.lecun_normal()(key, shape, dtype)
    return {"kernel": kernel, "bias": zero, "gate": by_cond, "gate_bias": zero, "shift": by_cond}


def _layer(layer, linear, h, cond):
    def spread(a):
        return a.reshape(-1, *(1,) * (h.ndim - 2), a.shape[-1])

    gate = jax.nn.sigmoid(spread(cond @ layer["gate"] + layer["gate_bias"]))
    return (linear(h, layer["kernel"]) + layer["bias"]) * gate + spread(cond @ layer["shift"])
