"""A depthwise convolution whose gradients stay fast inside `lax.scan` on CPU.

XLA:CPU has no fast form of a convolution with as many groups as channels, and its gradients run in a naive loop. Here
the output is a sum of shifted products, which becomes one loop, and the gradient of the kernel goes example by example,
so that the products stay in the cache (a scan over the batch: where several CPU devices share one, each gathers all of
it; right, but slow). On GPU and TPU the native forms are used. Reverse mode only, as `conv2d`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.networks.precision import gradients, matmul_precision, rounded, wide


def depthwise_conv2d(x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"]) -> Float[Array, "B H W C"]:
    """Every channel with a kernel of its own, zeros around the image, odd sides.

    >>> depthwise_conv2d(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 2)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    return _depthwise(x, kernel, matmul_precision())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, precision):
    with jax.default_matmul_precision(precision):
        return jax.lax.platform_dependent(x, kernel, cpu=_shifted_sum, default=_native)


def _forward(x, kernel, precision):
    return _depthwise(x, kernel, precision), (x, kernel)


def _backward(precision, saved, g):
    with jax.default_matmul_precision(precision):
        return jax.lax.platform_dependent(*saved, g, cpu=_cpu_gradients, default=_native_gradients)


_depthwise.defvjp(_forward, _backward)


def _native(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=x.shape[-1]
    )


def _native_gradients(x, kernel, g):
    return gradients(_native, x, kernel, g)


def _shifted_sum(x, kernel):
    side, (H, W) = kernel.shape[0], x.shape[1:3]
    padded = _padded(x, side)
    taps = [padded[:, i : i + H, j : j + W] * wide(kernel[i, j]) for i in range(side) for j in range(side)]
    return functools.reduce(jnp.add, taps).astype(x.dtype)


def _padded(x, side):
    """The barrier keeps XLA from fusing what x is made of into each of the taps."""
    margin = ((side - 1) // 2,) * 2
    return jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), margin, margin, (0, 0))))


def _cpu_gradients(x, kernel, g):
    side, (H, W, C) = kernel.shape[0], x.shape[1:]
    padded = _padded(x, side)

    def of_example(total, example):
        a, g = example
        taps = jax.lax.map(
            lambda i: _sum(jax.lax.dynamic_slice(a, (i // side, i % side, 0), (H, W, C)) * g), jnp.arange(side**2)
        )
        return total + taps.reshape(kernel.shape), None

    grad_kernel = jax.lax.scan(of_example, jnp.zeros_like(wide(kernel)), (padded, g))[0]
    grad_kernel = grad_kernel if kernel.dtype == grad_kernel.dtype else rounded(grad_kernel)
    return _shifted_sum(g, jnp.flip(kernel, (0, 1))), grad_kernel


def _sum(products):
    """Over pixels, as a product with ones; the barrier keeps XLA from fusing a loop that is not vectorized."""
    rows = jax.lax.optimization_barrier(wide(products).reshape(-1, products.shape[-1]))
    return (jnp.ones((1, len(rows)), rows.dtype) @ rows)[0]
