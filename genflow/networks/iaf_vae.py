"""The parts of a ResNet VAE with inverse autoregressive flow, which the first batch initializes."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from genflow.core import Network
from genflow.networks.conv import conv2d
from genflow.networks.precision import precise, wide
from genflow.networks.pure import pure
from genflow.networks.shifted import shifted_conv


class DataNormConv(nn.Module):
    """3x3 convolution with kernel exp(log_gain) * v / ||v|| for each output channel, and a bias.

    Gain and bias start such that the outputs of the first batch have mean 0 and standard deviation `init_scale`; where
    they do not vary, the gain starts at 1. With a mask [2, 3, in, out] no row below is seen.

    Reference: Salimans and Kingma (2016), Weight normalization, arXiv:1602.07868, equations 2 and 6.
    """

    features: int
    init_scale: float = 0.1
    mask: np.ndarray | None = None

    @nn.compact
    def __call__(self, x):
        shape = (3 if self.mask is None else 2, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.05), shape, x.dtype)
        kernel = wide(kernel) if self.mask is None else wide(kernel) * self.mask
        unit = kernel / jnp.sqrt(jnp.square(kernel).sum((0, 1, 2)) + 1e-12)

        def outputs(kernel):
            kernel = kernel.astype(x.dtype)
            return conv2d(x, kernel) if self.mask is None else shifted_conv(x, kernel)

        def start():
            y = outputs(unit)
            std = y.std((0, 1, 2))
            return y.mean((0, 1, 2)), jnp.where(std > 1e-4, self.init_scale / jnp.maximum(std, 1e-4), 1.0)

        gain = jnp.exp(wide(self.param("log_gain", lambda key: jnp.log(start()[1]))))
        bias = self.param("bias", lambda key: -start()[0] * start()[1])
        return outputs(unit * gain) + bias


def causal_mask(levels_in: np.ndarray, levels_out: np.ndarray, strict: bool) -> np.ndarray:
    """[2, 3, in, out]: all of the row above and of the pixel to the left; of the pixel itself, channels by level.

    Args:
      strict: an output sees the levels below its own; otherwise its own, too.
    """
    before = levels_in[:, None] < levels_out if strict else levels_in[:, None] <= levels_out
    mask = np.ones((2, 3, *before.shape), np.float32)
    mask[1, 1], mask[1, 2] = before, 0
    return mask


class _MaskedConvs(nn.Module):
    width: int
    num_hidden: int

    @nn.compact
    def __call__(self, z, context):
        channels = z.shape[-1]
        levels, hidden = np.arange(channels), np.arange(self.width) * channels // self.width
        h = DataNormConv(self.width, 1.0, causal_mask(levels, hidden, strict=False))(z) + context
        for _ in range(self.num_hidden - 1):
            h = DataNormConv(self.width, 1.0, causal_mask(hidden, hidden, strict=False))(nn.elu(h))
        outputs = np.concatenate((levels, levels))
        raw = DataNormConv(2 * channels, 1.0, causal_mask(hidden, outputs, strict=True))(nn.elu(h))
        return 0.1 * raw


@precise
def masked_convs(width: int, num_hidden: int = 2) -> Network:
    """(z [B, H, W, C], context [B, H, W, width]) -> shifts and log-scales [B, H, W, 2 C].

    Those of a value depend on values before it, in the order of the array: rows, columns, channels.

    Reference: Kingma et al. (2016), arXiv:1606.04934, appendix C, and the official code, of which the factor .1 is.
    """
    return pure(_MaskedConvs(width, num_hidden))


class _Up(nn.Module):
    width: int
    channels: int

    @nn.compact
    def __call__(self, x, cond=None):
        y = DataNormConv(2 * self.channels + 2 * self.width)(nn.elu(x))
        y, h = jnp.split(y, (2 * self.channels + self.width,), -1)
        return x + 0.1 * DataNormConv(self.width)(nn.elu(h)), y


@precise
def bottom_up(width: int, channels: int) -> Network:
    """A residual block h -> (h, [mean, log-std, context] for the posterior of its level)."""
    return pure(_Up(width, channels))


class _Conv(nn.Module):
    features: int
    is_first: bool

    @nn.compact
    def __call__(self, x, cond=None):
        return DataNormConv(self.features)(x if self.is_first else nn.elu(x))


@precise
def elu_conv(features: int, is_first: bool = False) -> Network:
    """conv(elu(x)): what a level is told by the features above it, what it adds to them; conv(x) of the data."""
    return pure(_Conv(features, is_first))
