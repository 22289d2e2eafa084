"""U-Nets that are told a time and a condition: what diffusion models of images denoise with.

Parameters are plain dicts: `kernel` [kh, kw, I, O] and `bias` of every convolution and dense layer, `scale` and `bias`
of every normalization. An `init` fills a kernel with the half-width of its uniform distribution and `randomized` draws
all of them at once, because a key for each would cost seconds of compile time.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Network, Params
from genflow.networks.attention import drop
from genflow.networks.conv import conv2d
from genflow.networks.nvae import randomized
from genflow.networks.precision import inner_dtype, precise
from genflow.networks.shifted import halve_windows
from genflow.networks.time_mlp import sinusoidal
from genflow.networks.vdvae import average_pool, nearest_upsample

RESAMPLE = ("conv", "block")
MEMORY = ("store", "remat")
GROUPS, CHANNELS = 32, 4  # normalized groups, at most, and channels of one, at least: one would forget the time
TIMES = 1000.0  # the fastest angle of the embedded time, radians in a unit of time


class Part(NamedTuple):
    """One step on the way down or up: a residual block, with or without attention after it, or a resampling."""

    name: str
    features_in: int
    features: int
    attends: bool = False
    resample: str = ""  # 'down' or 'up'


class Plan(NamedTuple):
    """A U-Net for images of one size."""

    width: int
    down: tuple[Part, ...]
    middle: tuple[Part, ...]
    up: tuple[Part, ...]


class Options(NamedTuple):
    """What all blocks share."""

    heads: int
    dropout: float
    scale_shift: bool
    resample: str
    rescale_skip: bool


@precise(exact_inputs=True)
def unet(
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    dropout: float = 0.1,
    scale_shift: bool = False,
    resample: str = "conv",
    rescale_skip: bool = False,
    memory: str = "store",
) -> Callable[[int], Network]:
    """Builder of U-Nets [B, H, W, C], cond (t [B] in [0, 1], c [B, D] or None) -> [B, H, W, features]; zero at first.

    Args:
      width: channels of the first level.
      multipliers: channels of each level, in widths; each level but the last halves the image.
      blocks: residual blocks of a level on the way down; one more on the way up.
      attention: pixels a side of the levels with attention after each block; there is attention in the middle too.
      heads: of attention; divides the channels of the levels that have it.
      dropout: rate inside residual blocks.
      scale_shift: the time scales and shifts what the second normalization of a block returns, as in iDDPM; else it is
        added before that.
      resample: 'conv', a convolution of stride 2, and one after the repetition of pixels; or 'block', residual blocks
        with mean pooling and repetition inside, as in BigGAN, DDPM++ and ADM.
      rescale_skip: sums with a skip connection are divided by sqrt(2), as in score SDEs.
      memory: what the backward pass keeps: 'store' everything, 'remat' the input of every block.

    Raises:
      ValueError: a choice that does not exist; when shapes are known, images that cannot be halved often enough,
        or a level of `attention` that is not there.

    Reference: Ho et al. (2020), arXiv:2006.11239, appendix B and the official code; Nichol and Dhariwal (2021),
      arXiv:2102.09672, section 4 (scale_shift); Song et al. (2021), arXiv:2011.13456, appendix H.
    """
    _check(width, multipliers, blocks, heads, dropout, resample, memory)
    options = Options(heads, dropout, scale_shift, resample, rescale_skip)

    def build(features):
        plan_of = functools.partial(_plan, width, multipliers, blocks, attention, heads, resample)
        init = functools.partial(_init, plan_of, options, features)
        return Network(init, functools.partial(_apply, plan_of, options, memory))

    return build


def _check(width, multipliers, blocks, heads, dropout, resample, memory):
    for name, value, known in (("resample", resample, RESAMPLE), ("memory", memory, MEMORY)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if not multipliers or min(width, blocks, heads, *multipliers) < 1:
        sizes = f"width={width}, multipliers={multipliers}, blocks={blocks}, heads={heads}"
        raise ValueError(f"{sizes}: expected 1 or more of each")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} is a probability below 1")


def _plan(width, multipliers, blocks, attention, heads, resample, shape):
    """The parts in order; features_in of the way up counts the skip connection."""
    side, levels = shape[1], len(multipliers)
    factor = 2 ** (levels - 1)
    if shape[1] % factor or shape[2] % factor:
        remedy = "give fewer multipliers, or resize the images (data.image_size)"
        raise ValueError(f"multipliers={multipliers} halve {shape[1]}x{shape[2]} pixels {levels - 1} times: {remedy}")
    sides = [side // 2**level for level in range(levels)]
    if strange := [n for n in attention if n not in sides]:
        there = ", ".join(map(str, sides))
        raise ValueError(f"attention={attention}: no level has {strange[0]} pixels a side; there are {there}")
    features = [width * multiplier for multiplier in multipliers]
    for level, n in enumerate(features):
        if n % heads and (sides[level] in attention or level == levels - 1):
            raise ValueError(f"heads={heads} must divide the {n} channels of a level with attention")
    down, up, skips, now = [], [], [width], width
    for level, n in enumerate(features):
        for i in range(blocks):
            down.append(Part(f"down_{level}_{i}", now, n, sides[level] in attention))
            now = n
            skips.append(now)
        if level < levels - 1:
            down.append(Part(f"down_{level}", now, now, resample="down"))
            skips.append(now)
    middle = (Part("middle_0", now, now, True), Part("middle_1", now, now))
    for level, n in reversed(list(enumerate(features))):
        for i in range(blocks + 1):
            up.append(Part(f"up_{level}_{i}", now + skips.pop(), n, sides[level] in attention))
            now = n
        if level:
            up.append(Part(f"up_{level}", now, now, resample="up"))
    return Plan(width, tuple(down), middle, tuple(up))


def _init(plan_of, options, features, key, x, cond):
    plan, c = plan_of(x.shape), cond[1]
    told = 4 * plan.width
    params = {
        "time_0": conv_params(1, plan.width, told),
        "time_1": conv_params(1, told, told),
        "input": conv_params(3, x.shape[-1], plan.width),
        "normalization": normalization_params(plan.up[-1].features),
        "output": conv_params(3, plan.up[-1].features, features, 0.0),
    }
    if c is not None:
        params["condition"] = {"kernel": conv_params(1, c.shape[-1], told)["kernel"]}
    for part in (*plan.down, *plan.middle, *plan.up):
        params[part.name] = part_params(part, told, options)
    return randomized(key, params)


def part_params(part: Part, told: int, options: Options) -> Params:
    """Of a part, for `randomized`; `told` is the size of what tells it time and condition."""
    if part.resample and options.resample == "conv":
        return {"conv": conv_params(3, part.features_in, part.features)}
    params = {
        "normalization_0": normalization_params(part.features_in),
        "conv_0": conv_params(3, part.features_in, part.features),
        "time": conv_params(1, told, part.features * (1 + options.scale_shift)),
        "normalization_1": normalization_params(part.features),
        "conv_1": conv_params(3, part.features, part.features, 0.0),
    }
    if part.features_in != part.features:
        params["shortcut"] = conv_params(1, part.features_in, part.features)
    if part.attends:
        n = part.features
        params["attention"] = {
            "normalization": normalization_params(n),
            "query_key_value": {"kernel": jnp.full((1, 1, n, 3 * n), (3 / n) ** 0.5), "bias": jnp.zeros(3 * n)},
            "mix": conv_params(1, n, n, 0.0),
        }
    return params


def conv_params(side, features_in, features, scale=1.0):
    """The half-width sqrt(6 / (fan_in + fan_out)) everywhere, times `scale`, and no bias."""
    half_width = scale * (6 / (side**2 * (features_in + features))) ** 0.5
    return {"kernel": jnp.full((side, side, features_in, features), half_width), "bias": jnp.zeros(features)}


def normalization_params(features: int) -> Params:
    """A scale of one and a bias of zero for each channel."""
    return {"scale": jnp.ones(features), "bias": jnp.zeros(features)}


def _apply(plan_of, options, memory, params, x, cond, key=None):
    plan, (t, c) = plan_of(x.shape), cond
    dtype = inner_dtype(x, params["input"]["kernel"])
    told = embed(params, plan.width, t, c).astype(dtype)
    run = functools.partial(run_part, options)
    if memory == "remat":
        run = jax.checkpoint(run, static_argnums=0)
    parts = (*plan.down, *plan.middle, *plan.up)
    keys = {part.name: None if key is None else jax.random.fold_in(key, i) for i, part in enumerate(parts)}
    h = conv(params["input"], x).astype(dtype)
    skips = [h]
    for part in plan.down:
        h = run(part, params[part.name], h, told, keys[part.name])
        skips.append(h)
    for part in plan.middle:
        h = run(part, params[part.name], h, told, keys[part.name])
    for part in plan.up:
        if not part.resample:
            h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = run(part, params[part.name], h, told, keys[part.name])
    y = conv(params["output"], normalized(params["normalization"], h, jax.nn.silu))
    return y.astype(jnp.promote_types(y.dtype, jnp.float32))


def embed(params, width, t, c):
    """[B, 4 width]: what every block is told."""
    h = sinusoidal(TIMES * t.astype(jnp.promote_types(t.dtype, jnp.float32)), width)
    h = dense(params["time_1"], jax.nn.silu(dense(params["time_0"], h)))
    if c is not None:
        h += dense(params["condition"], c.astype(h.dtype))
    return jax.nn.silu(h)


def run_part(options: Options, part: Part, params: Params, x: Array, told: Array, key: Array | None) -> Array:
    """What a part makes of images [B, H, W, C], told time and condition."""
    if part.resample and options.resample == "conv":
        return (halve if part.resample == "down" else double)(params["conv"], x)
    y = _residual(options, part, params, x, told, key)
    return self_attention(options, params["attention"], y) if part.attends else y


def _residual(options, part, params, x, told, key):
    h = normalized(params["normalization_0"], x, jax.nn.silu)
    if part.resample:
        change = average_pool if part.resample == "down" else nearest_upsample
        h, x = change(h, 2), change(x, 2)
    h = conv2d(h, params["conv_0"]["kernel"].astype(h.dtype))
    bias, said = params["conv_0"]["bias"].astype(h.dtype), dense(params["time"], told)[:, None, None]
    if options.scale_shift:
        scale, shift = jnp.split(said, 2, axis=-1)
        h = normalized(params["normalization_1"], h + bias, lambda y: jax.nn.silu(y * (1 + scale) + shift))
    else:
        h = normalized(params["normalization_1"], h + (bias + said), jax.nn.silu)
    h = conv(params["conv_1"], drop(key, h, options.dropout))
    return _sum(options, conv(params["shortcut"], x) if "shortcut" in params else x, h)


def self_attention(options: Options, params: Params, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """x + mix(softmax(q k / sqrt(K)) v): heads are examples of one batch of products, which CPUs like best."""
    B, H, W, C = x.shape
    heads, K = options.heads, C // options.heads
    together = conv(params["query_key_value"], normalized(params["normalization"], x))
    q, k, v = (
        a.reshape(B, H * W, heads, K).swapaxes(1, 2).reshape(B * heads, H * W, K)
        for a in jnp.split(together, 3, axis=-1)
    )
    wide = jnp.promote_types(x.dtype, jnp.float32)
    scores = jnp.einsum("blk,bmk->blm", K**-0.5 * q, k, preferred_element_type=wide)
    mixed = jnp.einsum("blm,bmk->blk", jax.nn.softmax(scores).astype(v.dtype), v)
    return _sum(options, x, conv(params["mix"], mixed.reshape(B, heads, H * W, K).swapaxes(1, 2).reshape(x.shape)))


def _sum(options, x, h):
    return (x + h) * 0.5**0.5 if options.rescale_skip else x + h


def dense(params: Params, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
    """A dense layer whose kernel is that of a 1x1 convolution."""
    return x @ params["kernel"][0, 0].astype(x.dtype) + params.get("bias", jnp.zeros(())).astype(x.dtype)


def conv(params: Params, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
    """A convolution of stride 1 that keeps the size."""
    return conv2d(x, params["kernel"].astype(x.dtype)) + params["bias"].astype(x.dtype)


def halve(params: Params, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
    """A convolution of stride 2, with zeros below and to the right."""
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return halve_windows(padded, params["kernel"].astype(x.dtype)) + params["bias"].astype(x.dtype)


def double(params: Params, x: Float[Array, "B h w I"]) -> Float[Array, "B H W O"]:
    """Every pixel 2x2 times, and a convolution: each of the four sees 2x2 different pixels, so 16 products, not 36."""
    B, h, w, _ = x.shape
    rows = _merged(params["kernel"].astype(x.dtype), 0)
    taps = [conv2d(x, _merged(rows[i], 1)[j], ((1 - i, i), (1 - j, j))) for i in range(2) for j in range(2)]
    y = jnp.stack(taps, axis=3).reshape(B, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(B, 2 * h, 2 * w, -1) + params["bias"].astype(x.dtype)


def _merged(kernel, axis):
    """The kernels of even and of odd outputs, whose neighbors on one side are copies of themselves."""
    a, b, c = jnp.split(kernel, 3, axis)
    return jnp.concatenate([a, b + c], axis), jnp.concatenate([a + b, c], axis)


def normalized(params: Params, x: Float[Array, "B H W C"], after: Callable | None = None) -> Float[Array, "B H W C"]:
    """after(scale * (x - mean) / std + bias), mean and std of one example over its pixels and a group of channels.

    Statistics are float32 or wider.

    Reference: Wu and He (2018), Group normalization, arXiv:1803.08494, equation 1.
    """
    B, H, W, C = x.shape
    num = groups(C)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(B, H * W, num, C // num)
    mean, square = wide.mean((1, 3)), (wide**2).mean((1, 3))
    std = jnp.sqrt(jnp.maximum(square - mean**2, 0) + 1e-6)
    scale = params["scale"] * jnp.repeat(1 / std, C // num, axis=1)
    shift = params["bias"] - jnp.repeat(mean, C // num, axis=1) * scale
    y = x * scale[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)
    return after(y) if after else y


def groups(features: int) -> int:
    """How many groups of channels are normalized: the most that divide the channels into 4 or more each, up to 32.

    >>> [groups(n) for n in (3, 4, 32, 96, 128, 192)]
    [1, 1, 8, 24, 32, 32]
    """
    most = min(GROUPS, max(features // CHANNELS, 1))
    return max(n for n in range(1, most + 1) if features % n == 0)
