"""RefineNets whose every normalization is told the noise level: what noise conditional score networks are made of.

Parameters are plain dicts, drawn by `nvae.randomized`: `kernel` [kh, kw, I, O] and `bias` of a convolution; of a
normalization `scale`, `mix` and `bias`, each [levels, C]. Dilated convolutions are ordinary ones of the images that
every d-th row and column make, so that they are fast in loops and have derivatives of any order.

Reference: Lin et al. (2017), RefineNet, arXiv:1611.06612; Song and Ermon (2019), Generative modeling by estimating
gradients of the data distribution, arXiv:1907.05600, appendix A, and the official code.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Network, Params
from genflow.networks.conv import conv2d
from genflow.networks.nvae import half_width, randomized
from genflow.networks.precision import inner_dtype, precise, wide
from genflow.networks.vdvae import average_pool

POOLED = 5  # pixels a side of the windows of chained pooling
EPSILON = 1e-5


@precise(exact_inputs=True)
def refinenet(
    levels: int,
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    dilations: tuple[int, ...] = (1, 1, 2, 4),
    blocks: int = 2,
) -> Callable[[int], Network]:
    """Builder of networks [B, H, W, C], cond (t [B], None) -> [B, H, W, features]; t = 1 / levels .. 1 names a level.

    Between two levels the tables of the normalizations are interpolated.

    Args:
      width: channels of the first stage.
      multipliers: channels of each stage, in widths.
      dilations: of each stage's convolutions. A stage after the first that has none, 1, halves the image.
      blocks: residual blocks of a stage, residual units of each of its inputs on the way back, and windows in a row
        in chained pooling; the last stage returns after blocks + 1 units, the others after one.

    Raises:
      ValueError: sizes that are not positive or do not match; when shapes are known, images that cannot be halved.
    """
    if len(multipliers) != len(dilations) or not multipliers:
        raise ValueError(f"multipliers={multipliers} and dilations={dilations} have one entry for each stage")
    if min(levels, width, blocks, *multipliers, *dilations) < 1:
        raise ValueError(f"levels={levels}, width={width}, blocks={blocks}, {multipliers}, {dilations}: 1 or more each")
    widths = tuple(width * multiplier for multiplier in multipliers)

    def build(features):
        init = functools.partial(_init, levels, widths, dilations, blocks, features)
        return Network(init, functools.partial(_apply, levels, dilations))

    return build


def hats(t: Float[Array, " B"], levels: int) -> Float[Array, "B levels"]:
    """Weights that add to one: all of it at level i of t = i / levels, shared by two neighbours between levels.

    >>> hats(jnp.array([0.5, 0.75]), 2).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    place = jnp.clip(t * levels - 1, 0, levels - 1)
    return jnp.maximum(1 - jnp.abs(place[:, None] - jnp.arange(levels)), 0)


def conditional_norm(
    params: Params, x: Float[Array, "B H W C"], level: Float[Array, "B levels"]
) -> Float[Array, "B H W C"]:
    """Conditional instance normalization++: scale * (normalized x + mix * normalized means) + bias, of a level.

    Each channel of an example is normalized over its pixels; what that takes out, its mean, is normalized over the
    channels, with the unbiased variance, and put back.

    Reference: Song and Ermon (2019), arXiv:1907.05600, appendix A; `scale` multiplies the means too, as in the
      official code.
    """
    scale, mix, bias = (level @ wide(params[name]) for name in ("scale", "mix", "bias"))
    mean, variance = wide(x).mean((1, 2)), wide(x).var((1, 2))
    spread = jnp.sqrt(mean.var(1, keepdims=True, ddof=min(1, mean.shape[1] - 1)) + EPSILON)
    means = (mean - mean.mean(1, keepdims=True)) / spread
    slope = scale / jnp.sqrt(variance + EPSILON)
    shift = scale * mix * means + bias - slope * mean
    return x * slope[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)


def dilated_conv2d(
    x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], dilation: int
) -> Float[Array, "B H W O"]:
    """A convolution whose taps are `dilation` pixels apart, and that keeps the size."""
    d = dilation
    if d == 1:
        return conv2d(x, kernel)
    B, H, W, C = x.shape
    x = jnp.pad(x, ((0, 0), (0, -H % d), (0, -W % d), (0, 0)))
    h, w = x.shape[1] // d, x.shape[2] // d
    parts = x.reshape(B, h, d, w, d, C).transpose(0, 2, 4, 1, 3, 5).reshape(B * d * d, h, w, C)
    y = conv2d(parts, kernel).reshape(B, d, d, h, w, -1)
    return y.transpose(0, 3, 1, 4, 2, 5).reshape(B, h * d, w * d, -1)[:, :H, :W]


def mean_of_windows(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The mean of the 5x5 pixels around each pixel; outside the image there are zeros."""
    return _along_both(x, *(_window(side) for side in x.shape[1:3]))


def stretch(x: Float[Array, "B h w C"], shape: tuple[int, int]) -> Float[Array, "B H W C"]:
    """Bilinear interpolation to H x W pixels; those of the corners stay in the corners."""
    if x.shape[1:3] == shape:
        return x
    return _along_both(x, *(_line(few, many) for few, many in zip(x.shape[1:3], shape, strict=True)))


def _along_both(x, rows, columns):
    x = jnp.einsum("Hh,bhwc->bHwc", jnp.asarray(rows, x.dtype), x)
    return jnp.einsum("Ww,bhwc->bhWc", jnp.asarray(columns, x.dtype), x)


def _window(side):
    near = np.abs(np.subtract.outer(np.arange(side), np.arange(side))) <= POOLED // 2
    return near / POOLED


def _line(few, many):
    place = np.arange(many) * (few - 1) / max(many - 1, 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(few)), 0)


def _init(levels, widths, dilations, blocks, features, key, x, cond):
    _check_halves(dilations, x.shape)
    normed = functools.partial(_normed_params, levels)
    params = {
        "input": _conv_params(3, x.shape[-1], widths[0]),
        "output": normed(widths[0], features),
    }
    before = widths[0]
    for stage, (width, dilation) in enumerate(zip(widths, dilations, strict=True)):
        first = _block_params(normed, before, width, dilation, stage > 0)
        others = {f"block_{i}": _block_params(normed, width, width, dilation, False) for i in range(1, blocks)}
        params[f"stage_{stage}"] = {"block_0": first} | others
        before = width
    last = len(widths) - 1
    below = widths[last]
    for stage in range(last, -1, -1):
        inputs = (widths[stage],) if stage == last else (widths[stage], below)
        below = widths[stage] if stage in (0, last) else widths[stage - 1]
        params[f"refine_{stage}"] = _refine_params(normed, inputs, below, blocks, stage == 0)
    return randomized(key, params)


def _check_halves(dilations, shape):
    halves = sum(d == 1 for d in dilations[1:])
    if shape[1] % 2**halves or shape[2] % 2**halves:
        remedy = "give more of them dilations, or resize the images (data.image_size)"
        raise ValueError(f"dilations={dilations} halve {shape[1]}x{shape[2]} pixels {halves} times: {remedy}")


def _conv_params(side, features_in, features, bias=True):
    kernel = {"kernel": half_width((side, side, features_in, features))}
    return kernel | ({"bias": jnp.zeros(features)} if bias else {})


def _normed_params(levels, features_in, features, bias=True):
    """Of a normalization and the convolution after it."""
    tables = (jnp.ones, jnp.ones, jnp.zeros)
    norm = {name: table((levels, features_in)) for name, table in zip(("scale", "mix", "bias"), tables, strict=True)}
    return {"norm": norm, "conv": _conv_params(3, features_in, features, bias)}


def _block_params(normed, features_in, features, dilation, changes):
    middle = features_in if changes else features
    params = {"first": normed(features_in, middle), "second": normed(middle, features)}
    if changes or features_in != features:
        params["shortcut"] = _conv_params(1 if dilation == 1 else 3, features_in, features)
    return params


def _refine_params(normed, inputs, features, blocks, is_final):
    params = {f"adapt_{i}": _units_params(normed, n, blocks) for i, n in enumerate(inputs)}
    if len(inputs) > 1:
        params["fuse"] = {f"input_{i}": normed(n, features) for i, n in enumerate(inputs)}
    params["pool"] = {f"window_{i}": normed(features, features, False) for i in range(blocks)}
    return params | {"units": _units_params(normed, features, blocks + 1 if is_final else 1)}


def _units_params(normed, features, num):
    return {f"unit_{i}": {name: normed(features, features, False) for name in ("first", "second")} for i in range(num)}


def _apply(levels, dilations, params, x, cond, key=None):
    level, last = hats(cond[0], levels), len(dilations) - 1
    first = jax.tree.map(wide, params["input"])  # rounded, x would lose the noise of the lowest levels
    h, seen = conv(first, x).astype(inner_dtype(x, params["input"]["kernel"])), []
    for stage, dilation in enumerate(dilations):
        for i, block in enumerate(_in_order(params[f"stage_{stage}"])):
            h = _block(block, h, level, dilation, stage > 0 and i == 0 and dilation == 1)
        seen.append(h)
    h = _refine(params[f"refine_{last}"], [seen[last]], level)
    for stage in range(last - 1, -1, -1):
        h = _refine(params[f"refine_{stage}"], [seen[stage], h], level)
    return _activated(params["output"], h, level)


def _block(params, x, level, dilation, halve):
    h = _activated(params["second"], _activated(params["first"], x, level, dilation), level, dilation)
    shortcut = conv(params["shortcut"], x, dilation) if "shortcut" in params else x
    return average_pool(shortcut + h, 2) if halve else shortcut + h


def _refine(params, inputs, level):
    """Adapted inputs, fused at the first one's resolution, pooled in a chain, and refined."""
    adapted = [_units(params[f"adapt_{i}"], x, level) for i, x in enumerate(inputs)]
    h = adapted[0]
    if "fuse" in params:
        shape = h.shape[1:3]
        h = sum(stretch(_normed(params["fuse"][f"input_{i}"], x, level), shape) for i, x in enumerate(adapted))
    h = pooled = jax.nn.elu(h)
    for window in _in_order(params["pool"]):
        pooled = conv(window["conv"], mean_of_windows(conditional_norm(window["norm"], pooled, level)))
        h = h + pooled
    return _units(params["units"], h, level)


def _in_order(params):
    """The values of {name_0, name_1, ...}."""
    return [params[name] for name in sorted(params, key=lambda name: int(name.rpartition("_")[2]))]


def _units(params, x, level):
    """Residual convolution units."""
    for unit in _in_order(params):
        x = x + _activated(unit["second"], _activated(unit["first"], x, level), level)
    return x


def _activated(params, x, level, dilation=1):
    return conv(params["conv"], jax.nn.elu(conditional_norm(params["norm"], x, level)), dilation)


def _normed(params, x, level):
    return conv(params["conv"], conditional_norm(params["norm"], x, level))


def conv(params: Params, x: Float[Array, "B H W I"], dilation: int = 1) -> Float[Array, "B H W O"]:
    """A convolution that keeps the size, with a bias where there is one."""
    y = dilated_conv2d(x, params["kernel"], dilation)
    return y + params["bias"] if "bias" in params else y
