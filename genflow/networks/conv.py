"""A stride-1 convolution whose gradients stay fast inside `lax.scan` on CPU.

XLA:CPU rewrites convolutions to its fast form only in the entry computation, so the gradients of a convolution in a
loop body run 13 to 100 times slower (jax-ml/jax#12868). `conv2d` writes both gradients as convolutions and matrix
products that are already in that form; on GPU and TPU the native gradients are used. The price: reverse mode only
(to any order), no `jax.jvp` or `jax.jacfwd` through a network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv2d(x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"]) -> Float[Array, "B H W O"]:
    """Stride-1 SAME convolution; kernel sides must be odd. A 1x1 kernel is one 2-D matrix product."""
    if kernel.shape[:2] == (1, 1):
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])
    return _spatial_conv(x, kernel)


def _native(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


@jax.custom_vjp
def _spatial_conv(x, kernel):
    return _native(x, kernel)


def _forward(x, kernel):
    return _native(x, kernel), (x, kernel)


def _backward(saved, g):
    return jax.lax.platform_dependent(*saved, g, cpu=_canonical_gradients, default=_native_gradients)


_spatial_conv.defvjp(_forward, _backward)


def _native_gradients(x, kernel, g):
    return jax.vjp(_native, x, kernel)[1](g)


def _canonical_gradients(x, kernel, g):
    flipped = jax.lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    return _spatial_conv(g, flipped), _kernel_gradient(x, g, kernel.shape)


def _kernel_gradient(x, g, shape):
    """D kernel, by whichever of three equal forms has the smallest patches matrix."""
    kh, kw, features_in, features_out = shape
    if kh * kw * features_in <= features_out:
        columns = _columns(x, kh, kw)
        return (columns.T @ g.reshape(-1, features_out)).reshape(shape)
    if kh * kw * features_out <= features_in:
        columns = _columns(g, kh, kw)
        flat = (columns.T @ x.reshape(-1, features_in)).reshape(kh, kw, features_out, features_in)
        return jnp.flip(flat, (0, 1)).swapaxes(2, 3)
    padding = [((kh - 1) // 2,) * 2, ((kw - 1) // 2,) * 2]
    images, filters = jax.lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
    gradient = jax.lax.conv_general_dilated(images, filters, (1, 1), padding, dimension_numbers=_DIMENSIONS)
    return gradient.transpose(1, 2, 0, 3)


def _columns(x, kh, kw):
    """Patches matrix [B H W, kh kw C]; the barrier keeps XLA from fusing the copies into the product."""
    _, H, W, C = x.shape
    padded = jnp.pad(x, ((0, 0), ((kh - 1) // 2,) * 2, ((kw - 1) // 2,) * 2, (0, 0)))
    shifted = [padded[:, i : i + H, j : j + W] for i in range(kh) for j in range(kw)]
    return jax.lax.optimization_barrier(jnp.stack(shifted, -2).reshape(-1, kh * kw * C))


class Conv(nn.Module):
    """Stride-1 SAME convolution with bias, on `conv2d`."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features), x.dtype)
        y = conv2d(x, kernel)
        return y + self.param("bias", nn.initializers.zeros, (self.features,), x.dtype) if self.use_bias else y


class ZeroConv(nn.Module):
    """Zero-initialized convolution times exp(3 log_scale), so that a layer starts as the identity and learns fast.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, section 3.3 and the official code.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)

    @nn.compact
    def __call__(self, x):
        y = Conv(self.features, self.kernel_size, nn.initializers.zeros)(x)
        return y * jnp.exp(3.0 * self.param("log_scale", nn.initializers.zeros, (self.features,), x.dtype))


class ActNormConv(nn.Module):
    """Convolution, then per-channel normalization by the first batch: the hidden layers of Glow."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    init_std: float = 0.05

    @nn.compact
    def __call__(self, x):
        y = Conv(self.features, self.kernel_size, nn.initializers.normal(self.init_std), use_bias=False)(x)
        bias = self.param("bias", lambda key: -y.mean((0, 1, 2)))
        log_scale = self.param("log_scale", lambda key: -jnp.log(y.std((0, 1, 2)) + 1e-6) / 3.0)
        return (y + bias) * jnp.exp(3.0 * log_scale)


def mark_border(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C+1"]:
    """Appends a channel that is 1 on the border and 0 inside, so that a convolution sees where zero padding begins."""
    inside = jnp.zeros((1, *x.shape[1:3], 1), x.dtype)
    border = jnp.ones_like(inside).at[:, 1:-1, 1:-1].set(0.0)
    return jnp.concatenate([x, jnp.broadcast_to(border, (x.shape[0], *border.shape[1:]))], axis=-1)
