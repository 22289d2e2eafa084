"""The stages of a convolutional hierarchical VAE: residual blocks with weight normalization, up from the data and down.

A strided convolution is one on blocks of stride x stride pixels, brought into channels, and its transpose the reverse:
the same maps as with strides, in the form that is fast on a CPU (see `conv`).
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from genflow.core import Network
from genflow.networks.conv import biased_conv2d
from genflow.networks.mlp import activation_by_name
from genflow.networks.precision import precise, wide
from genflow.networks.pure import pure

INIT = nn.initializers.lecun_normal()


def to_channels(x, side: int):
    """[B, H, W, C] to [B, H / side, W / side, side * side * C]; `to_pixels` undoes it."""
    B, H, W, C = x.shape
    blocks = x.reshape(B, H // side, side, W // side, side, C).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(B, H // side, W // side, side * side * C)


def to_pixels(x, side: int):
    """[B, H, W, side * side * C] to [B, H * side, W * side, C]."""
    B, H, W, C = x.shape
    blocks = x.reshape(B, H, W, side, side, C // side**2).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(B, H * side, W * side, C // side**2)


class Normed(nn.Module):
    """W x + b with W = scale * kernel / ||kernel|| for each output (Salimans and Kingma 2016, arXiv:1602.07868).

    kernel: side of a convolution's kernel; 0: a matrix on the flattened input.
    gain: of the weights at the start, relative to a variance of one over the inputs.
    """

    features: int
    kernel: int = 3
    gain: float = 1.0

    @nn.compact
    def __call__(self, x):
        x = x if self.kernel else x.reshape(x.shape[0], -1)
        shape = (*(self.kernel,) * (2 if self.kernel else 0), x.shape[-1], self.features)
        kernel = self.param("kernel", INIT, shape, x.dtype)
        scale = self.param("scale", nn.initializers.constant(self.gain), (self.features,), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        norm = jnp.sqrt(jnp.square(wide(kernel)).sum(range(kernel.ndim - 1)) + 1e-12)
        kernel = (kernel * (scale / norm)).astype(x.dtype)
        return biased_conv2d(x, kernel, bias) if self.kernel else x @ kernel + bias


class Block(nn.Module):
    """x + conv(act(conv(act(x)))), the second convolution to 1 / stride of the size, or to stride times it."""

    kernel: int
    activation: Callable
    stride: int = 1
    is_up: bool = False

    @nn.compact
    def __call__(self, x):
        width, side = x.shape[-1], self.stride
        y = self.activation(Normed(width, self.kernel)(self.activation(x)))
        kernel = 2 * -(-(self.kernel // 2) // side) + 1  # as wide in pixels as the strided one, or one step wider
        if side == 1:
            return x + Normed(width, kernel, 0.3)(y)
        if self.is_up:
            return _enlarged(x, side) + to_pixels(Normed(width * side**2, kernel, 0.3)(y), side)
        return _averaged(x, side) + Normed(width, kernel, 0.3)(to_channels(y, side))


def _averaged(x, side):
    return to_channels(x, side).reshape(x.shape[0], x.shape[1] // side, x.shape[2] // side, side**2, -1).mean(3)


def _enlarged(x, side):
    return to_pixels(jnp.tile(x, side**2), side)


class Lift(nn.Module):
    """A latent vector or map as a map of the given size, plus what skips it."""

    size: tuple[int, int]
    width: int
    kernel: int
    activation: Callable

    @nn.compact
    def __call__(self, z, skip=None):
        H, W = self.size
        is_map = z.ndim == 4
        y = Normed(self.width, self.kernel)(z) if is_map else Normed(H * W * self.width, 0)(z)
        y = y.reshape(-1, H, W, self.width)
        return y if skip is None else y + Normed(self.width, 1)(self.activation(skip))


class Stage(nn.Module):
    """`blocks` residual blocks after a `Lift`; the last (down from a latent: the first) changes the size."""

    size: tuple[int, int]
    width: int
    kernel: int
    stride: int
    blocks: int
    activation: Callable
    is_up: bool

    @nn.compact
    def __call__(self, z, skip=None):
        y = Lift(self.size, self.width, self.kernel, self.activation)(z, skip)
        strides = [1] * (self.blocks - 1)
        for stride in [self.stride, *strides] if self.is_up else [*strides, self.stride]:
            y = Block(self.kernel, self.activation, stride, self.is_up)(y)
        return y


class Head(nn.Module):
    """Parameters from a map, and from another of the same shape: a vector where `kernel` is 0, otherwise a map."""

    features: int
    kernel: int
    activation: Callable

    @nn.compact
    def __call__(self, h, other=None):
        if other is not None:
            act, width = self.activation, h.shape[-1]
            h = h + Normed(width, 3, 0.3)(act(Normed(width, 3)(act(h)) + Normed(width, 3)(act(other))))
        return Normed(self.features, self.kernel, 0.3)(self.activation(h))


@precise
def hvae_stage(
    size: tuple[int, int], width: int, kernel: int, stride: int, blocks: int, activation: str, is_up: bool
) -> Network:
    """Residual blocks on lift(z) + conv(skip): apply(params, z, skip) -> map [B, H, W, width].

    Args:
      size: H and W of the map that z and skip become.
      stride: the output has 1 / stride of that size, or stride times it if `is_up`.
    """
    return pure(Stage(size, width, kernel, stride, blocks, activation_by_name(activation), is_up))


@precise
def hvae_head(features: int, kernel: int, activation: str) -> Network:
    """Parameters of what is drawn next, apply(params, map, other map) -> [B, features], or [B, H, W, features].

    Args:
      kernel: side of the convolution; 0: a matrix on the whole map.
    """
    return pure(Head(features, kernel, activation_by_name(activation)))
