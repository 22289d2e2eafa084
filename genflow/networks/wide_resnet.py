"""Wide residual networks, classifiers of images, with group normalization or with none.

Parameters are plain dicts: `kernel` [kh, kw, I, O] of every convolution and [I, O] of the last layer, `bias`, and
`scale` of a normalization; `nvae.randomized` draws the kernels.

Reference: Zagoruyko and Komodakis (2016), Wide residual networks, arXiv:1605.07146, table 1.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Network, Params
from genflow.networks.conv import conv2d
from genflow.networks.nvae import half_width, randomized
from genflow.networks.precision import precise, wide
from genflow.networks.shifted import halve_windows

NORMS = ("none", "group")
STAGES = (1, 2, 4)  # channels of each, in units of STEM * width; each but the first halves the image
STEM = 16  # channels of the first convolution
GROUP = 8  # channels that are normalized together
SLOPE = 0.2  # of the leaky rectifier
EPSILON = 1e-5


@precise
def wide_resnet(depth: int = 28, width: int = 10, norm: str = "none") -> Callable[[int], Network]:
    """Builder of networks [B, H, W, C] -> [B, features].

    The paper normalizes over the batch. Here an example is normalized alone, so that its energy does not depend on its
    neighbours, or not at all, as in Grathwohl et al. (2020), arXiv:1912.03263, whose leaky rectifiers these are.

    Args:
      depth: convolutions on the longest way and the last layer, 6 n + 4 for n blocks in each of three stages.
      width: channels, in units of 16, 32 and 64 for the three stages.
      norm: 'none' or 'group'.

    Raises:
      ValueError: another depth, a width below one, a norm that does not exist.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth={depth}: expected 10, 16, 22, 28, ..., which is 6 n + 4")
    if width < 1:
        raise ValueError(f"width={width} must be above zero")
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r}: expected one of {', '.join(NORMS)}")
    blocks = (depth - 4) // 6

    def build(features):
        return Network(functools.partial(_init, blocks, width, norm, features), _apply)

    return build


def _init(blocks, width, norm, features, key, x, cond=None):
    channels = [STEM * width * stage for stage in STAGES]
    params = {"stem": _conv(3, x.shape[-1], STEM, norm)}
    before = STEM
    for stage, after in enumerate(channels):
        for block in range(blocks):
            params[f"stage_{stage}_block_{block}"] = _block(before, after, norm)
            before = after
    params |= _norm("norm", before, norm)
    params["logits"] = {"kernel": half_width((before, features)), "bias": jnp.zeros(features)}
    return jax.tree.map(lambda a: a.astype(x.dtype), randomized(key, params))


def _block(before, after, norm):
    params = {"conv_1": _conv(3, before, after, norm), "conv_2": _conv(3, after, after, norm)}
    params |= _norm("norm_1", before, norm) | _norm("norm_2", after, norm)
    if before != after:
        params["shortcut"] = {"kernel": half_width((1, 1, before, after))}
    return params


def _conv(side, before, after, norm):
    """The bias of a convolution does nothing where a normalization follows."""
    kernel = {"kernel": half_width((side, side, before, after))}
    return kernel | ({"bias": jnp.zeros(after)} if norm == "none" else {})


def _norm(name, channels, norm):
    return {} if norm == "none" else {name: {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}}


def _apply(params: Params, x: Float[Array, "B H W C"], cond=None, key=None) -> Float[Array, "B features"]:
    h = _convolved(params["stem"], x)
    blocks = len([name for name in params if name.startswith("stage_0_")])
    for stage in range(len(STAGES)):
        for block in range(blocks):
            h = _residual(params[f"stage_{stage}_block_{block}"], h, stride=2 if stage and not block else 1)
    h = wide(_activated(params, "norm", h)).mean((1, 2))  # energies are made of logits: these are not rounded
    return h @ wide(params["logits"]["kernel"]) + params["logits"]["bias"]


def _residual(params, h, stride):
    a = _activated(params, "norm_1", h)
    r = _convolved(params["conv_1"], a, stride)
    r = _convolved(params["conv_2"], _activated(params, "norm_2", r))
    if "shortcut" in params:
        # the shortcut sees what the convolution sees, as in the authors' code
        h = conv2d(a[:, ::stride, ::stride], params["shortcut"]["kernel"])
    return h + r


def _convolved(params, x, stride=1):
    kernel = params["kernel"]
    y = conv2d(x, kernel) if stride == 1 else halve_windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel)
    return y + params["bias"] if "bias" in params else y


def _activated(params, name, x):
    if name in params:
        x = _group_norm(params[name], x)
    return jax.nn.leaky_relu(x, SLOPE)


def _group_norm(params, x):
    B, H, W, C = x.shape
    groups = wide(x).reshape(B, H * W, -1, math.gcd(GROUP, C))
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    normalized = ((groups - mean) * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape).astype(x.dtype)
    return normalized * params["scale"] + params["bias"]
