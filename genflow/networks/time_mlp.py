"""Perceptrons that are told a time, and what tells it."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Network
from genflow.networks.precision import inner_dtype, precise
from genflow.networks.pure import pure


def sinusoidal(t: Float[Array, " B"], features: int, longest: float = 10_000.0) -> Float[Array, "B features"]:
    """sin and cos of t at geometric frequencies from 1 to 1 / longest.

    Reference: Vaswani et al. (2017), arXiv:1706.03762, section 3.5, as in the official code of DDPM.
    """
    half = features // 2
    angles = t[:, None] * jnp.exp(-math.log(longest) * jnp.arange(half) / max(half - 1, 1))
    embedded = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(embedded, ((0, 0), (0, features - 2 * half)))


FASTEST = 16.0  # radians in a unit of time: equations in time are solved in few steps, before training too


class TimeMLP(nn.Module):
    """Dense layers of one width with residual connections, each told the embedded time and the condition."""

    features: int
    width: int
    num_blocks: int

    @nn.compact
    def __call__(self, x, cond):
        t, c = cond
        told = nn.Dense(self.width)(sinusoidal(FASTEST * t, self.width, 10 * FASTEST))
        if c is not None:
            told += nn.Dense(self.width, use_bias=False)(c)
        enter = nn.Dense(self.width)
        h = enter(x)
        dtype = inner_dtype(h, enter.variables["params"]["kernel"])
        h, told = h.astype(dtype), told.astype(dtype)
        for _ in range(self.num_blocks):
            r = nn.Dense(self.width)(nn.silu(h)) + nn.Dense(self.width)(nn.silu(told))
            h += nn.Dense(self.width)(nn.silu(r))
        return nn.Dense(self.features)(nn.silu(h))


@precise(exact_inputs=True)
def time_mlp(width: int, num_blocks: int) -> Callable[[int], Network]:
    """Builder of perceptrons [B, D], cond (t [B] in [0, 1], c [B, C] or None) -> [B, features]."""
    return lambda features: pure(TimeMLP(features, width, num_blocks))
