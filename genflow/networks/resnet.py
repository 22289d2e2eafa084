"""Residual convolutional networks at constant resolution."""

import math
from collections.abc import Callable

import flax.linen as nn

from genflow.core import Network
from genflow.networks.conv import Conv, ZeroConv
from genflow.networks.film import FiLM
from genflow.networks.precision import precise
from genflow.networks.pure import pure


class ResNet(nn.Module):
    """Conv, pre-activation residual blocks (GroupNorm, SiLU, 3x3 conv, twice; the last of a block zero), conv."""

    features: int
    width: int
    num_blocks: int
    zero_last: bool = True

    @nn.compact
    def __call__(self, x, cond=None):
        def activated(h):
            # groups of several channels: a group of one would take out what cond adds to its channel
            return nn.silu(nn.GroupNorm(None, group_size=math.gcd(16, self.width), param_dtype=x.dtype)(h))

        h = Conv(self.width)(x)
        for _ in range(self.num_blocks):
            r = FiLM()(Conv(self.width)(activated(h)), cond)
            h += ZeroConv(self.width)(activated(r))
        return (ZeroConv if self.zero_last else Conv)(self.features)(nn.silu(h))


@precise
def resnet(width: int, num_blocks: int, zero_last: bool = True) -> Callable[[int], Network]:
    """Builder of residual networks [B, H, W, C], cond [B, D] or None -> [B, H, W, features]; zero at the start.

    Args:
      zero_last: False: the last layer starts at random, for `bijectors.learned_tanh`.

    Reference: He et al. (2016), Identity mappings in deep residual networks, arXiv:1603.05027.
    """
    return lambda features: pure(ResNet(features, width, num_blocks, zero_last))
