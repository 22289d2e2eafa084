"""The conditioners of Glow's couplings and split priors."""

from collections.abc import Callable

import flax.linen as nn

from genflow.core import Network
from genflow.networks.conv import ActNormConv, ZeroConv
from genflow.networks.film import FiLM
from genflow.networks.precision import precise
from genflow.networks.pure import pure


class GlowConv(nn.Module):
    """3x3 conv, 1x1 conv, zero 3x3 conv, with ActNorm after the first two and the border marked."""

    features: int
    width: int

    @nn.compact
    def __call__(self, x, cond=None):
        h = FiLM()(ActNormConv(self.width, mark_border=True)(x), cond)
        h = ActNormConv(self.width, (1, 1))(nn.relu(h))
        return ZeroConv(self.features, mark_border=True)(nn.relu(h))


class _ZeroConvOnly(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, cond=None):
        return ZeroConv(self.features, mark_border=True)(x)


@precise
def glow_conv(width: int) -> Callable[[int], Network]:
    """Conditioner [B, H, W, C], cond [B, D] or None -> [B, H, W, features].

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, section 3.3 and the official code.
    """
    return lambda features: pure(GlowConv(features, width))


@precise
def zero_conv() -> Callable[[int], Network]:
    """One zero-initialized 3x3 convolution: the parameters of Glow's split priors."""
    return lambda features: pure(_ZeroConvOnly(features))
