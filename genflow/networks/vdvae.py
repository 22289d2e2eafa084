"""What very deep VAEs are made of: bottlenecks of convolutions, and changes of resolution without parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Network, Params
from genflow.networks.conv import biased_conv2d
from genflow.networks.precision import precise

NAMES = ("reduce", "first", "second", "expand")


def gelu(x: Array) -> Array:
    """x * Phi(x), with Phi the normal distribution function itself, not its approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


@precise
def bottleneck(side: int, middle: int, features: int, last_scale: float = 1.0) -> Network:
    """g -> expand(gelu(second(gelu(first(gelu(reduce(g))))))), of an input that has been through gelu already.

    Reduce and expand are 1x1 convolutions, the two between them 3x3 ones on images of more than 2x2 pixels.

    Args:
      side: of the images, pixels.
      middle: channels inside.
      last_scale: times the kernel of the last convolution at the start; 0: all outputs start at 0.

    Reference: Child (2021), Very deep VAEs generalize autoregressive models and can outperform them on images,
    arXiv:2011.10650, and the official code.
    """
    inner = 3 if side > 2 else 1

    def init(key, x, cond=None):
        sizes = zip((1, inner, inner, 1), (x.shape[-1], *(middle,) * 3), (*(middle,) * 3, features), strict=True)
        keys = jax.random.split(key, len(NAMES))
        params = {name: init_conv(k, *size) for name, k, size in zip(NAMES, keys, sizes, strict=True)}
        params["expand"]["kernel"] *= last_scale
        return params

    def apply(params, x, cond=None, key=None):
        for name in NAMES[:-1]:
            x = gelu(conv(params[name], x))
        return conv(params[NAMES[-1]], x)

    return Network(init, apply)


def init_conv(key: Array, size: int, features_in: int, features: int) -> Params:
    """{'kernel', 'bias'}: uniform within 1 / sqrt(fan_in) of zero, and zero."""
    bound = (size * size * features_in) ** -0.5
    kernel = jax.random.uniform(key, (size, size, features_in, features), minval=-bound, maxval=bound)
    return {"kernel": kernel, "bias": jnp.zeros(features)}


def conv(params: Params, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
    """A convolution of stride 1 that keeps the size."""
    return biased_conv2d(x, params["kernel"], params["bias"])


def average_pool(x: Float[Array, "B H W C"], factor: int) -> Float[Array, "B h w C"]:
    """The mean of every `factor` x `factor` pixels.

    >>> average_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), 2).tolist()
    [[[[1.5]]]]
    """
    B, H, W, C = x.shape
    return x.reshape(B, H // factor, factor, W // factor, factor, C).mean((2, 4))


def nearest_upsample(x: Float[Array, "B h w C"], factor: int) -> Float[Array, "B H W C"]:
    """Every pixel `factor` x `factor` times."""
    B, H, W, C = x.shape
    spread = jnp.broadcast_to(x[:, :, None, :, None], (B, H, factor, W, factor, C))
    return spread.reshape(B, H * factor, W * factor, C)
