"""Networks with batch normalization, and the perceptrons of the first GANs."""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from genflow.core import Params
from genflow.networks.precision import precise

MOMENTUM = 0.9  # of the running averages: what an update keeps of them


class StatefulNetwork(NamedTuple):
    """A network that normalizes by its batch while it is trained, and by running averages of that afterwards.

    init(key, x, cond=None) -> (params, state)
    apply(params, state, x, cond=None, key=None, training=False) -> (output, state): without `training` the state is
        that given, and each example is on its own. Dropout happens only where a key is given.
    """

    init: Callable[..., tuple[Params, PyTree]]
    apply: Callable[..., tuple[Array, PyTree]]


def stateful(module: nn.Module) -> StatefulNetwork:
    """A Linen module, called with (x, cond, training), whose only state is the collection 'batch_stats'."""

    def init(key, x, cond=None):
        variables = module.init(key, x, cond, False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(params, state, x, cond=None, key=None, training=False):
        variables, rngs = {"params": params, "batch_stats": state}, None if key is None else {"dropout": key}
        if not training:
            return module.apply(variables, x, cond, False, rngs=rngs), state
        y, changed = module.apply(variables, x, cond, True, rngs=rngs, mutable=["batch_stats"])
        return y, changed.get("batch_stats", {})

    return StatefulNetwork(init, apply)


class BatchNorm(nn.Module):
    """Normalizes each channel over the batch and the pixels, then scales and shifts it: for each condition otherwise.

    Reference: Ioffe and Szegedy (2015), arXiv:1502.03167; of a condition, Dumoulin et al. (2017), arXiv:1610.07629.
    """

    @nn.compact
    def __call__(self, h, cond, training):
        plain = nn.BatchNorm(not training, momentum=MOMENTUM, use_bias=False, use_scale=False, dtype=h.dtype)
        h, size = plain(h), (h.shape[-1],)
        if cond is None:
            return h * self.param("scale", nn.initializers.ones, size) + self.param("bias", nn.initializers.zeros, size)
        tables = [self.param(name, nn.initializers.zeros, (cond.shape[-1], *size)) for name in ("scale", "bias")]
        scale, bias = ((cond @ table).reshape(-1, *(1,) * (h.ndim - 2), *size) for table in tables)
        return h * (1.0 + scale) + bias


def _initializer(half_width):
    if not half_width:
        return nn.initializers.he_normal()
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -half_width, half_width)


def _beside(h, cond):
    return h if cond is None else jnp.concatenate([h, cond.astype(h.dtype)], axis=-1)


class Generator(nn.Module):
    """ReLU layers on the noise and what is given, then a linear one, squashed to [-1, 1] if asked."""

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    half_width: float
    squash: bool

    @nn.compact
    def __call__(self, z, cond=None, training=False):
        kernel_init, h = _initializer(self.half_width), _beside(z, cond)
        for width in self.widths:
            h = nn.relu(nn.Dense(width, kernel_init=kernel_init)(h))
        y = nn.Dense(math.prod(self.shape), kernel_init=kernel_init, name="output")(h).reshape(-1, *self.shape)
        return jnp.tanh(0.5 * y) if self.squash else y  # 2 sigmoid(y) - 1


class Discriminator(nn.Module):
    """Maxout layers, each unit the largest of some linear pieces (of one piece: ReLU), with dropout; one logit."""

    widths: tuple[int, ...]
    pieces: int
    dropout_input: float
    dropout: float
    half_width: float
    unit_range: bool

    @nn.compact
    def __call__(self, x, cond=None, training=False):
        kernel_init, fixed = _initializer(self.half_width), not self.has_rng("dropout")
        h = x.reshape(x.shape[0], -1)
        h = _beside((h + 1.0) / 2.0 if self.unit_range else h, cond)
        h = nn.Dropout(self.dropout_input, deterministic=fixed)(h)
        for width in self.widths:
            pieces = nn.Dense(width * self.pieces, kernel_init=kernel_init)(h)
            h = nn.relu(pieces) if self.pieces == 1 else pieces.reshape(-1, width, self.pieces).max(-1)
            h = nn.Dropout(self.dropout, deterministic=fixed)(h)
        return nn.Dense(1, kernel_init=kernel_init)(h)[:, 0]


@precise
def gan_generator(
    shape: tuple[int, ...], widths: tuple[int, ...], half_width: float = 0.0, squash: bool = True
) -> StatefulNetwork:
    """Perceptron z [B, D], cond [B, K] or None -> [B, *shape].

    Args:
      half_width: of the uniform distribution of the weights at the start; 0: normal, sqrt(2 / inputs).
      squash: the last layer is a sigmoid, stretched to [-1, 1]; its parameters are in 'output'.
    """
    return stateful(Generator(tuple(shape), tuple(widths), half_width, squash))


@precise
def gan_discriminator(
    widths: tuple[int, ...],
    pieces: int = 5,
    dropout_input: float = 0.2,
    dropout: float = 0.5,
    half_width: float = 0.0,
    unit_range: bool = True,
) -> StatefulNetwork:
    """Perceptron x [B, *event], cond [B, K] or None -> logit [B].

    Args:
      pieces: of a maxout unit (Goodfellow et al. 2013, arXiv:1302.4389); 1: ReLU.
      dropout_input, dropout: fraction dropped of the inputs, and of the units of each layer.
      half_width: as of `gan_generator`.
      unit_range: x in [-1, 1] is brought to [0, 1] first.
    """
    return stateful(Discriminator(tuple(widths), pieces, dropout_input, dropout, half_width, unit_range))
