"""Multi-layer perceptrons."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from genflow.core import Network
from genflow.networks.pure import pure


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


def mlp(widths: tuple[int, ...], activation: Callable = nn.silu, zero_last: bool = False) -> Callable[[int], Network]:
    """Builder of perceptrons [B, *event], cond [B, ...] or None -> [B, features]."""
    return lambda features: pure(MLP(features, tuple(widths), activation, zero_last))
