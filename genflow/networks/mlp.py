"""Multi-layer perceptrons."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from genflow.core import Network
from genflow.networks.precision import precise
from genflow.networks.pure import pure

ACTIVATIONS = {"leaky_relu": nn.leaky_relu, "relu": nn.relu, "silu": nn.silu, "tanh": nn.tanh}


def activation_by_name(name: str) -> Callable:
    """One of ACTIVATIONS.

    Raises:
      ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class MLP(nn.Module):
    """Flattens the event, appends cond, applies hidden layers and a linear last layer (zero at the start if asked)."""

    features: int
    widths: tuple[int, ...]
    activation: Callable = nn.silu
    zero_last: bool = False

    @nn.compact
    def __call__(self, x, cond=None):
        h = x.reshape(x.shape[0], -1)
        if cond is not None:
            h = jnp.concatenate([h, cond.reshape(cond.shape[0], -1).astype(h.dtype)], axis=-1)
        for width in self.widths:
            h = self.activation(nn.Dense(width, param_dtype=x.dtype)(h))
        last = nn.initializers.zeros if self.zero_last else nn.initializers.lecun_normal()
        return nn.Dense(self.features, kernel_init=last, param_dtype=x.dtype)(h)


@precise
def mlp(widths: tuple[int, ...], activation: Callable = nn.silu, zero_last: bool = False) -> Callable[[int], Network]:
    """Builder of perceptrons [B, *event], cond [B, ...] or None -> [B, features]."""
    return lambda features: pure(MLP(features, tuple(widths), activation, zero_last))


class ResidualMLP(nn.Module):
    """Dense, blocks h + dense(dropped(a(dense(a(h))))) that start at zero, and a dense last layer that does too."""

    features: int
    width: int
    num_blocks: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, cond=None):
        h = x.reshape(x.shape[0], -1)
        if cond is not None:
            h = jnp.concatenate([h, cond.reshape(cond.shape[0], -1).astype(h.dtype)], axis=-1)
        dropped = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))
        h = nn.Dense(self.width, param_dtype=x.dtype)(h)
        for _ in range(self.num_blocks):
            r = nn.relu(nn.Dense(self.width, param_dtype=x.dtype)(nn.relu(h)))
            h += nn.Dense(self.width, kernel_init=nn.initializers.zeros, param_dtype=x.dtype)(dropped(r))
        return nn.Dense(self.features, kernel_init=nn.initializers.zeros, param_dtype=x.dtype)(nn.relu(h))


@precise
def residual_mlp(width: int, num_blocks: int, dropout: float = 0.0) -> Callable[[int], Network]:
    """Builder of residual perceptrons [B, *event], cond [B, ...] or None -> [B, features]; zero at the start.

    Args:
      dropout: fraction of hidden units that are dropped where a key is given.

    Reference: Durkan et al. (2019), Neural spline flows, arXiv:1906.04032, appendix B.1 (without batch normalization).
    """
    return lambda features: pure(ResidualMLP(features, width, num_blocks, dropout))
