"""The conditioners of Flow++: gated convolutions and self-attention."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from genflow.core import Network
from genflow.networks.conv import Conv, ZeroConv
from genflow.networks.film import FiLM
from genflow.networks.precision import precise
from genflow.networks.pure import pure
from genflow.networks.stack import sequence, stack


def concat_elu(x):
    """Elu of x and of -x, side by side: [..., C] -> [..., 2 C]. Salimans et al. (2017), arXiv:1701.05517."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


class GatedConvAttention(nn.Module):
    """Gated 3x3 convolution, layer norm, gated self-attention over all positions, layer norm; both residual."""

    width: int
    num_heads: int
    dropout: float

    @nn.compact
    def __call__(self, x, cond=None):
        return self.attention(self.convolution(x, cond))

    def convolution(self, x, cond):
        """x + a * sigmoid(b), (a, b) from two convolutions; a spatial cond enters between them, a vector by FiLM."""
        h = Conv(self.width)(concat_elu(x))
        spatial = cond is not None and cond.ndim == x.ndim
        h = h + Conv(self.width, (1, 1))(concat_elu(cond)) if spatial else FiLM()(h, cond)
        h = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(concat_elu(h))
        a, b = jnp.split(Conv(2 * self.width)(h), 2, -1)
        return nn.LayerNorm(param_dtype=x.dtype)(x + a * jax.nn.sigmoid(b))

    def attention(self, x):
        """x + a * sigmoid(b) with (a, b) from multi-head attention between all pixels of an image."""
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        attention = nn.MultiHeadDotProductAttention(
            self.num_heads, dtype=x.dtype, param_dtype=x.dtype, force_fp32_for_softmax=True
        )
        h = attention(tokens)
        a, b = jnp.split(Conv(2 * self.width, (1, 1))(h.reshape(x.shape)), 2, -1)
        return nn.LayerNorm(param_dtype=x.dtype)(x + a * jax.nn.sigmoid(b))


class _Stem(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, cond=None):
        position = self.param("position", nn.initializers.normal(0.01), (*x.shape[1:3], self.width), x.dtype)
        return Conv(self.width)(x) + position


class _Head(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, cond=None):
        return ZeroConv(self.features)(x)


@precise
def gated_attention(width: int, num_blocks: int, num_heads: int = 4, dropout: float = 0.0) -> Callable[[int], Network]:
    """Builder [B, H, W, C], cond [B, D] or [B, H, W, D] or None -> [B, H, W, features]; zero at the start.

    Reference: Ho et al. (2019), Flow++, arXiv:1902.00275, section 3.3.
    """
    block = pure(GatedConvAttention(width, num_heads, dropout))
    return lambda features: sequence(
        stem=pure(_Stem(width)), blocks=stack(block, num_blocks), head=pure(_Head(features))
    )


class _Context(nn.Module):
    width: int
    num_layers: int

    @nn.compact
    def __call__(self, x, cond=None):
        # left and right neighbours share a position, as in the compact checkerboard split
        B, H, W, C = x.shape
        h = Conv(self.width)(x.reshape(B, H, W // 2, 2 * C))
        for _ in range(self.num_layers):
            h += Conv(self.width)(concat_elu(FiLM()(Conv(self.width)(concat_elu(h)), cond)))
        return h


@precise
def checkerboard_context(width: int, num_layers: int = 3) -> Network:
    """[B, H, W, C] -> [B, H, W / 2, width]: what the dequantizer of Flow++ sees of the image."""
    return pure(_Context(width, num_layers))
