"""Convolutional generators and discriminators: DCGAN, and the residual networks of WGAN-GP and SNGAN.

Images in and out are in [-1, 1]. A layer that batch normalization follows has no bias, which that would take out.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.networks.conv import Conv, conv2d
from genflow.networks.gan import BatchNorm, StatefulNetwork, stateful
from genflow.networks.hvae import to_channels, to_pixels
from genflow.networks.precision import precise, wide
from genflow.networks.vdvae import average_pool, nearest_upsample

NARROW = nn.initializers.normal(0.02)
GLOROT = nn.initializers.glorot_uniform()
RESIDUAL = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


def strided_conv2d(x: Float[Array, "B H W I"], kernel: Float[Array, "5 5 I O"]) -> Float[Array, "B h w O"]:
    """Every second pixel, each way, of a 5x5 convolution: as one of stride 1 on blocks of 2x2 pixels."""
    blocks = _taps(kernel).transpose(0, 2, 1, 3, 4, 5)
    return conv2d(to_channels(x, 2), blocks.reshape(3, 3, 4 * kernel.shape[2], kernel.shape[3]))


def transposed_conv2d(x: Float[Array, "B h w I"], kernel: Float[Array, "5 5 I O"]) -> Float[Array, "B H W O"]:
    """The transpose of `strided_conv2d` with the channels of the kernel exchanged: twice as many pixels each way."""
    blocks = _taps(kernel)[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
    return to_pixels(conv2d(x, blocks.reshape(3, 3, kernel.shape[2], 4 * kernel.shape[3])), 2)


def _taps(kernel):
    """A 5x5 kernel and a row and a column of zeros, as 3x3 blocks of 2x2 taps: [3, 2, 3, 2, I, O]."""
    return jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(3, 2, 3, 2, *kernel.shape[2:])


class Halve(nn.Module):
    """A 5x5 convolution of stride 2."""

    features: int

    @nn.compact
    def __call__(self, x):
        return strided_conv2d(x, self.param("kernel", NARROW, (5, 5, x.shape[-1], self.features)))


class Double(nn.Module):
    """A transposed 5x5 convolution of stride 2."""

    features: int

    @nn.compact
    def __call__(self, x):
        return transposed_conv2d(x, self.param("kernel", NARROW, (5, 5, x.shape[-1], self.features)))


class DCGANGenerator(nn.Module):
    """Dense, then transposed convolutions that double the image and halve the channels; ReLU between, tanh after."""

    shape: tuple[int, int, int]
    width: int
    levels: int

    @nn.compact
    def __call__(self, z, cond=None, training=False):
        height, width = (side >> self.levels for side in self.shape[:2])
        channels = self.width << (self.levels - 1)
        h = nn.Dense(height * width * channels, use_bias=False, kernel_init=NARROW)(z)
        h = h.reshape(-1, height, width, channels)
        for level in reversed(range(self.levels)):
            h = nn.relu(BatchNorm()(h, cond, training))
            h = Double(self.width << (level - 1) if level else self.shape[2])(h)
        return jnp.tanh(h + self.param("bias", nn.initializers.zeros, (self.shape[2],)))


class DCGANDiscriminator(nn.Module):
    """Convolutions that halve the image and double the channels, leaky ReLU after each, a dense layer to one logit."""

    width: int
    levels: int

    @nn.compact
    def __call__(self, x, cond=None, training=False):
        h = x
        for level in range(self.levels):
            h = Halve(self.width << level)(h)
            if level:
                h = BatchNorm()(h, cond, training)
            else:
                h = h + self.param("bias", nn.initializers.zeros, (self.width,))
            h = nn.leaky_relu(h, 0.2)
        return nn.Dense(1, kernel_init=NARROW)(h.reshape(len(h), -1))[:, 0]


class Up(nn.Module):
    """Twice the size: conv(relu(norm(conv(enlarged(relu(norm(h))))))) + conv1x1(enlarged(h))."""

    width: int
    batch_norm: bool

    @nn.compact
    def __call__(self, h, cond, training):
        def activated(h):
            return nn.relu(BatchNorm()(h, cond, training) if self.batch_norm else h)

        r = nearest_upsample(activated(h), 2)
        r = Conv(self.width, kernel_init=RESIDUAL, use_bias=not self.batch_norm)(r)
        r = Conv(self.width, kernel_init=RESIDUAL, use_bias=not self.batch_norm)(activated(r))
        # a 1x1 convolution and the enlargement after it are the same as the other way round
        return r + nearest_upsample(Conv(self.width, (1, 1), GLOROT, not self.batch_norm)(h), 2)


class Down(nn.Module):
    """conv(relu(conv(relu(h)))) + h, with conv1x1(h) where sizes change; then the means of 2x2 pixels, if asked.

    is_first: of the image itself, there is no ReLU before the first convolution.
    """

    width: int
    halve: bool
    is_first: bool = False

    @nn.compact
    def __call__(self, h):
        r = Conv(self.width, kernel_init=RESIDUAL)(h if self.is_first else nn.relu(h))
        r = Conv(self.width, kernel_init=RESIDUAL)(nn.relu(r))
        if self.halve:
            r, h = average_pool(r, 2), average_pool(h, 2)
        return r + (Conv(self.width, (1, 1), GLOROT)(h) if self.halve or h.shape[-1] != self.width else h)


class ResNetGenerator(nn.Module):
    """Dense, blocks that double the image, a convolution to its channels, tanh."""

    shape: tuple[int, int, int]
    width: int
    levels: int
    batch_norm: bool

    @nn.compact
    def __call__(self, z, cond=None, training=False):
        height, width = (side >> self.levels for side in self.shape[:2])
        h = nn.Dense(height * width * self.width, kernel_init=GLOROT, use_bias=not self.batch_norm)(z)
        h = h.reshape(-1, height, width, self.width)
        for _ in range(self.levels):
            h = Up(self.width, self.batch_norm)(h, cond, training)
        h = nn.relu(BatchNorm()(h, cond, training) if self.batch_norm else h)
        return jnp.tanh(Conv(self.shape[2], kernel_init=GLOROT)(h))


class ResNetDiscriminator(nn.Module):
    """Blocks, some of which halve the image, a sum or mean over the pixels, and w^T h + h^T V c."""

    width: int
    downsamplings: int
    blocks: int
    pooling: str

    @nn.compact
    def __call__(self, x, cond=None, training=False):
        h = Down(self.width, True, True)(x)
        for i in range(1, self.downsamplings + self.blocks):
            h = Down(self.width, i < self.downsamplings)(h)
        h = nn.relu(h)
        h = wide(h).sum((1, 2)) if self.pooling == "sum" else wide(h).mean((1, 2))
        logit = nn.Dense(1, use_bias=False, kernel_init=GLOROT)(h)[:, 0]
        if cond is None:
            return logit
        return logit + (h * (cond @ self.param("embedding", GLOROT, (cond.shape[-1], self.width)))).sum(-1)


@precise
def dcgan_generator(shape: tuple[int, int, int], width: int = 128, levels: int = 4) -> StatefulNetwork:
    """Noise [B, D] -> [B, *shape] in [-1, 1], by `levels` doublings; the last hidden map has `width` channels.

    Reference: Radford et al. (2016), arXiv:1511.06434, figure 1.
    """
    return stateful(DCGANGenerator(tuple(shape), width, levels))


@precise
def dcgan_discriminator(width: int = 128, levels: int = 4) -> StatefulNetwork:
    """x [B, H, W, C] -> logit [B]; the first map has `width` channels.

    Reference: Radford et al. (2016), arXiv:1511.06434.
    """
    return stateful(DCGANDiscriminator(width, levels))


@precise
def resnet_generator(
    shape: tuple[int, int, int], width: int = 256, levels: int = 3, batch_norm: bool = True
) -> StatefulNetwork:
    """Noise [B, D], cond [B, K] or None -> [B, *shape] in [-1, 1]; what is given scales and shifts the normalized maps.

    Reference: Gulrajani et al. (2017), arXiv:1704.00028, appendix C; Miyato et al. (2018), arXiv:1802.05957, table 4.
    """
    return stateful(ResNetGenerator(tuple(shape), width, levels, batch_norm))


@precise
def resnet_discriminator(
    width: int = 128, downsamplings: int = 2, blocks: int = 2, pooling: str = "sum"
) -> StatefulNetwork:
    """x [B, H, W, C], cond [B, K] or None -> logit [B]; what is given is projected on the pooled features.

    Args:
      downsamplings: the first blocks, which halve the image.
      blocks: after them.
      pooling: over pixels, 'sum' or 'mean'.

    Reference: Miyato et al. (2018), arXiv:1802.05957, table 4; the projection, Miyato and Koyama (2018), cGANs with
      projection discriminator, arXiv:1802.05637, section 3.
    """
    return stateful(ResNetDiscriminator(width, downsamplings, blocks, pooling))
