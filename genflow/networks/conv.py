"""A stride-1 convolution whose gradients stay fast inside `lax.scan` on CPU.

XLA:CPU rewrites convolutions to its fast form only in the entry computation, so the gradients of a convolution in a
loop body run 13 to 100 times slower (jax-ml/jax#12868). `conv2d` writes both gradients as convolutions and matrix
products that are already in that form; on GPU and TPU the native forms are used. The price: reverse mode only
(to any order), no `jax.jvp` or `jax.jacfwd` through a network.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.networks.precision import gradients, matmul_precision, rounded, wide, wide_products

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


Padding = tuple[tuple[int, int], tuple[int, int]]  # zeros above and below, left and right


def conv2d(
    x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"], padding: Padding | None = None
) -> Float[Array, "B h w O"]:
    """Stride-1 convolution. A 1x1 kernel is one 2-D matrix product.

    Args:
      padding: zeros around the image, at most kernel side - 1 each; None: as many as keep the size, for odd sides.
    """
    if kernel.shape[:2] == (1, 1):
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])
    if padding is None:
        padding = tuple(((side - 1) // 2,) * 2 for side in kernel.shape[:2])
    return _spatial_conv(x, kernel, padding, matmul_precision())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _spatial_conv(x, kernel, padding, precision):
    return _on_platform(_cpu_conv, _native_conv, padding, precision, x, kernel)


def _on_platform(cpu, default, padding, precision, *arrays):
    with jax.default_matmul_precision(precision):
        forms = (functools.partial(form, padding=padding) for form in (cpu, default))
        return jax.lax.platform_dependent(*arrays, **dict(zip(("cpu", "default"), forms, strict=True)))


def _forward(x, kernel, padding, precision):
    return _spatial_conv(x, kernel, padding, precision), (x, kernel)


def _backward(padding, precision, saved, g):
    return _on_platform(_cpu_gradients, _native_gradients, padding, precision, *saved, g)


_spatial_conv.defvjp(_forward, _backward)


def _native_conv(x, kernel, padding):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS)


def _native_gradients(x, kernel, g, padding):
    return gradients(lambda x, kernel: _native_conv(x, kernel, padding), x, kernel, g)


def _cpu_conv(x, kernel, padding):
    """For few output channels one matrix product, one column per kernel tap and channel, then a sum of shifts."""
    kh, kw, features_in, features_out = kernel.shape
    if kh * kw * features_out > features_in:
        return _native_conv(x, kernel, padding)
    taps = kernel.transpose(2, 0, 1, 3).reshape(features_in, -1)
    products = jnp.matmul(x.reshape(-1, features_in), taps, preferred_element_type=wide(taps).dtype)
    products = _pad(products.reshape(*x.shape[:3], -1), padding)
    return sum(
        shifted[..., i * features_out : (i + 1) * features_out]
        for i, shifted in enumerate(_shifts(jax.lax.optimization_barrier(products), kh, kw))
    ).astype(x.dtype)


def _cpu_gradients(x, kernel, g, padding):
    flipped = jax.lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    grad_x = conv2d(g, flipped, _reverse(padding, kernel.shape))
    return grad_x, wide_products(lambda x, g: _kernel_gradient(x, g, kernel.shape, padding))(x, g)


def _reverse(padding, shape):
    """The padding with which the gradient of the output is convolved to that of the input."""
    return tuple((side - 1 - first, side - 1 - last) for side, (first, last) in zip(shape, padding, strict=False))


def _kernel_gradient(x, g, shape, padding):
    """d kernel, by whichever of three equal forms has the smallest patches matrix."""
    kh, kw, features_in, features_out = shape
    if kh * kw * features_in <= features_out:
        columns = _columns(x, kh, kw, padding)
        return (columns.T @ g.reshape(-1, features_out)).reshape(shape)
    if kh * kw * features_out <= features_in:
        columns = _columns(g, kh, kw, _reverse(padding, shape))
        flat = (columns.T @ x.reshape(-1, features_in)).reshape(kh, kw, features_out, features_in)
        return jnp.flip(flat, (0, 1)).swapaxes(2, 3)
    images, filters = jax.lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
    gradient = jax.lax.conv_general_dilated(images, filters, (1, 1), padding, dimension_numbers=_DIMENSIONS)
    return gradient.transpose(1, 2, 0, 3)


def _columns(x, kh, kw, padding):
    """Patches matrix [B H W, kh kw C]; the barrier keeps XLA from fusing the copies into the product."""
    patches = jnp.stack(_shifts(_pad(x, padding), kh, kw), -2)
    return jax.lax.optimization_barrier(patches.reshape(-1, kh * kw * x.shape[-1]))


def _pad(x, padding):
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def _shifts(padded, kh, kw):
    """The image that each kernel tap sees, [B, H, W, C] in row-major order of the taps."""
    H, W = padded.shape[1] - kh + 1, padded.shape[2] - kw + 1
    return [padded[:, i : i + H, j : j + W] for i in range(kh) for j in range(kw)]


def biased_conv2d(
    x: Float[Array, "B H W I"],
    kernel: Float[Array, "kh kw C O"],
    bias: Float[Array, "*H_W O"] | float,
    mark_border: bool = False,
) -> Float[Array, "B H W O"]:
    """conv2d(x, kernel) + bias, with one more input channel that is 1 on the border and 0 inside if `mark_border`.

    That channel shows the network where zero padding begins (Glow). It is the same for every example, so its part of
    the sum is a bias per pixel, and the convolution itself keeps a round number of channels.
    """
    if mark_border:
        return _add_border(conv2d(x, kernel[:, :, :-1]), jnp.asarray(bias), kernel[:, :, -1], matmul_precision())
    return _add(conv2d(x, kernel), jnp.asarray(bias, x.dtype), matmul_precision())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _add(x, bias, precision):
    return x + bias


def _add_backward(precision, bias, g):
    rows = g.reshape(-1, *bias.shape)  # examples, and pixels where they share a bias
    with jax.default_matmul_precision(precision):
        total = jax.lax.platform_dependent(rows, cpu=_sum_on_all_cores, default=lambda rows: wide(rows).sum(0))
    return g, _as(g, total)


def _sum_on_all_cores(rows):
    """Sum over the first axis, in float32, as a product with ones: XLA:CPU's own sum runs on one core."""
    ones, flat = jnp.ones((1, len(rows)), rows.dtype), rows.reshape(len(rows), -1)
    return jnp.matmul(ones, flat, preferred_element_type=wide(rows).dtype).reshape(rows.shape[1:])


_add.defvjp(lambda x, bias, precision: (x + bias, bias), _add_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _add_border(x, bias, border, precision):
    return x + _per_pixel(x, bias, border)


def _add_border_backward(precision, saved, g):
    """Of each example what reaches the weights, and then the sum: devices would add up a bias per pixel."""
    with jax.default_matmul_precision(precision):
        pull = jax.vjp(functools.partial(_per_pixel, g), *saved)[1]
        totals = jax.lax.platform_dependent(
            g,
            cpu=lambda g: pull(_as(g, _sum_on_all_cores(g))),
            default=lambda g: tuple(_as(a, wide(a).sum(0)) for a in jax.vmap(pull)(g)),
        )
    return g, *totals


_add_border.defvjp(
    lambda x, bias, border, precision: (_add_border(x, bias, border, precision), (bias, border)), _add_border_backward
)


def _as(like, total):
    return total if total.dtype == like.dtype else rounded(total)


def _per_pixel(x, bias, border):
    """[H, W, O]: the bias, and at each pixel of x the taps that see the border."""
    taps = jnp.asarray(_border_taps(*x.shape[1:3], *border.shape[:2]), border.dtype)
    return (bias + jnp.tensordot(taps, border, 2)).astype(x.dtype)


def _border_taps(height, width, kh, kw):
    """[H, W, kh, kw]: 1 where the kernel's tap falls on a border pixel."""
    border = np.ones((height, width))
    border[1:-1, 1:-1] = 0.0
    padded = np.pad(border, (((kh - 1) // 2,) * 2, ((kw - 1) // 2,) * 2))
    return np.lib.stride_tricks.sliding_window_view(padded, (kh, kw))


class Conv(nn.Module):
    """x -> scale * (conv(x) + own bias) + shift; scaling the weights costs less than scaling the activations."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True
    mark_border: bool = False

    @nn.compact
    def __call__(self, x, scale=1.0, shift=0.0):
        channels = x.shape[-1] + self.mark_border
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, channels, self.features), x.dtype)
        if self.use_bias:
            shift += scale * self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        return biased_conv2d(x, (scale * kernel).astype(x.dtype), shift, self.mark_border)


class ZeroConv(nn.Module):
    """Zero-initialized convolution times exp(3 log_scale), so that a layer starts as the identity and learns fast.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, section 3.3 and the official code.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    mark_border: bool = False

    @nn.compact
    def __call__(self, x):
        log_scale = self.param("log_scale", nn.initializers.zeros, (self.features,), x.dtype)
        conv = Conv(self.features, self.kernel_size, nn.initializers.zeros, mark_border=self.mark_border)
        return conv(x, jnp.exp(3.0 * wide(log_scale)))


class ActNormConv(nn.Module):
    """Convolution, then per-channel normalization with scale and shift from the first batch (hidden layers of Glow)."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    init_std: float = 0.05
    mark_border: bool = False

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.normal(self.init_std)
        conv = Conv(self.features, self.kernel_size, init, use_bias=False, mark_border=self.mark_border)
        bias = self.param("bias", lambda key: -conv(x).mean((0, 1, 2)))
        log_scale = self.param("log_scale", lambda key: -jnp.log(conv(x).std((0, 1, 2)) + 1e-6) / 3.0)
        scale = jnp.exp(3.0 * wide(log_scale))
        return conv(x, scale, scale * bias)
