"""Residual networks that give an image one number, its energy.

Parameters are plain dicts: `kernel` [kh, kw, I, O] of every convolution and [I, 1] of the last layer, `bias`; of a
block that is told a class `gain` and `shift` [classes, C]. `nvae.randomized` draws the kernels.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Network, Params
from genflow.networks.conv import conv2d
from genflow.networks.nvae import half_width, randomized
from genflow.networks.precision import precise, wide
from genflow.networks.vdvae import average_pool


@precise
def energy_resnet(
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2),
    blocks: int = 2,
    activation: Callable[[Array], Array] = jax.nn.leaky_relu,
) -> Network:
    """Network [B, H, W, C], cond [B, K] or None -> [B]: convolution, residual blocks, sum over the pixels, dense.

    The first block of a stage halves the image. There is no normalization; a class scales and shifts what each block
    adds.

    Args:
      width: channels of the first stage.
      multipliers: channels of each stage, in widths.
      blocks: of each stage.

    Raises:
      ValueError: sizes below one; when shapes are known, images that cannot be halved so often.

    Reference: Du and Mordatch (2019), Implicit generation and modeling with energy-based models, arXiv:1903.08689,
      the appendix's network for CIFAR-10.
    """
    if not multipliers or min(width, blocks, *multipliers) < 1:
        raise ValueError(f"width={width}, multipliers={multipliers}, blocks={blocks}: expected 1 or more of each")
    widths = tuple(width * multiplier for multiplier in multipliers)
    return Network(functools.partial(_init, widths, blocks), functools.partial(_apply, len(widths), blocks, activation))


def _init(widths, blocks, key, x, cond=None):
    factor = 2 ** len(widths)
    if x.shape[1] % factor or x.shape[2] % factor:
        raise ValueError(f"multipliers: {len(widths)} stages halve images of {x.shape[1]}x{x.shape[2]} too often")
    classes = 0 if cond is None else cond.shape[-1]
    params, before = {"first": _conv(3, x.shape[-1], widths[0])}, widths[0]
    for stage, after in enumerate(widths):
        for block in range(blocks):
            params[f"stage_{stage}_block_{block}"] = _block(before, after, classes)
            before = after
    params["last"] = {"kernel": half_width((before, 1)), "bias": jnp.zeros(1)}
    return jax.tree.map(lambda a: a.astype(x.dtype), randomized(key, params))


def _block(before, after, classes):
    params = {"conv_1": _conv(3, before, after), "conv_2": _conv(3, after, after)}
    if before != after:
        params["shortcut"] = _conv(1, before, after)
    if classes:
        params |= {"gain": jnp.zeros((classes, after)), "shift": jnp.zeros((classes, after))}
    return params


def _conv(side, before, after):
    return {"kernel": half_width((side, side, before, after)), "bias": jnp.zeros(after)}


def _apply(stages, blocks, activation, params: Params, x: Float[Array, "B H W C"], cond=None, key=None):
    h = _convolved(params["first"], x)
    for stage in range(stages):
        for block in range(blocks):
            h = _residual(params[f"stage_{stage}_block_{block}"], h, cond, activation)
            if not block:
                h = average_pool(h, 2)
    h = wide(activation(h)).sum((1, 2))
    return (h @ wide(params["last"]["kernel"]) + params["last"]["bias"])[:, 0]


def _residual(params, h, cond, activation):
    r = _convolved(params["conv_1"], activation(h))
    r = _convolved(params["conv_2"], activation(r))
    if cond is not None:
        r = r * (1 + cond @ params["gain"])[:, None, None] + (cond @ params["shift"])[:, None, None]
    return (_convolved(params["shortcut"], h) if "shortcut" in params else h) + r


def _convolved(params, x):
    return conv2d(x, params["kernel"]) + params["bias"]
