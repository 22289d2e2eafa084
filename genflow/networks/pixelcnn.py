"""PixelCNN: an image as a sequence of values, by convolutions that are masked.

Sites are (pixel, channel) in raster order. The features of a pixel stand in as many groups as it has channels, and
inside a pixel group c sees groups before c, and itself after the first layer: R, then G given R, then B given both.

A network is written once, as a function of conv(name, features). `apply` runs it with convolutions of whole maps,
`step` with products at one pixel, which compute group c of every layer at site (pixel, c) and keep what later sites
need: for every convolution as many rows as its kernel has.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from genflow.core import CausalNetwork, Params
from genflow.networks.conv import conv2d
from genflow.networks.precision import precise


class Layer(NamedTuple):
    """A convolution that sees `above` whole rows, `left` and `right` columns, and of its own row what is to the left.

    No tap of a kernel lies below or, but for `right` taps of its last row, after the pixel: one-sided padding does the
    rest of the masking.
    """

    features_in: int
    features_out: int
    above: int = 0
    left: int = 0
    right: int = 0
    mask: str = "B"  # inside the pixel group c sees groups < c (A) or <= c (B)
    parts: int = 1  # the outputs are so many maps side by side, each in groups

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the kernel."""
        return self.above + 1, self.left + 1 + self.right, self.features_in, self.features_out

    @property
    def padding(self) -> tuple:
        """Zeros around the map."""
        return (self.above, 0), (self.left, self.right)


def causal_mask(layer: Layer, groups: int) -> Bool[np.ndarray, "kh kw I O"]:
    """Where a kernel may differ from zero. Van den Oord et al. (2016), arXiv:1601.06759, section 3.4 and figure 2.

    >>> causal_mask(Layer(1, 1, above=1, left=1, right=1, mask="A"), 1)[..., 0, 0].astype(int).tolist()
    [[1, 1, 1], [1, 0, 0]]
    """
    inputs = np.arange(layer.features_in) * groups // layer.features_in
    outputs = np.tile(np.arange(groups).repeat(layer.features_out // layer.parts // groups), layer.parts)
    mask = np.ones(layer.shape, bool)
    mask[-1, layer.left] = inputs[:, None] < outputs if layer.mask == "A" else inputs[:, None] <= outputs
    mask[-1, layer.left + 1 :] = False
    return mask


def init_layer(key: Array, layer: Layer, groups: int, cond_dims: int = 0, gain: float = 1.0) -> Params:
    """Kernel N(0, gain^2 / fan-in), with the fan-in that the mask leaves; V of the bias V^T h N(0, 1 / cond_dims)."""
    scale = gain / np.sqrt(np.maximum(causal_mask(layer, groups).sum((0, 1, 2)), 1))
    params = {"kernel": scale * jax.random.normal(key, layer.shape), "bias": jnp.zeros(layer.features_out)}
    if not cond_dims:
        return params
    v = jax.random.normal(jax.random.fold_in(key, 1), (cond_dims, layer.features_out))
    return params | {"cond": v / np.sqrt(cond_dims)}


def total_bias(params: Params, cond: Float[Array, "B D"] | None) -> Float[Array, "*B O"]:
    """b + V^T h for the layers that the condition enters, [B, O]; b, [1, O], for the others."""
    bias = params["bias"][None]
    return bias + cond.astype(bias.dtype) @ params["cond"] if "cond" in params else bias


def whole(layers: dict[str, Layer], params: Params, groups: int, cond: Array | None) -> Callable:
    """conv(name, map [B, H, W, I]) -> [B, H, W, O]."""

    def conv(name, h):
        kernel = params[name]["kernel"] * causal_mask(layers[name], groups)
        return conv2d(h, kernel, layers[name].padding) + total_bias(params[name], cond)[:, None, None]

    return conv


class Position(NamedTuple):
    """Where a site is; groups and the size of a row do not change."""

    row: Int[Array, ""]
    column: Int[Array, ""]
    group: Int[Array, ""]


def position(i: Int[Array, ""], columns: int, groups: int) -> Position:
    """Of site i in raster order."""
    return Position(i // (columns * groups), i // groups % columns, i % groups)


def scaled(x: Array, bins: int, dtype: jnp.dtype) -> Array:
    """Values 0 .. bins - 1 to [-1, 1]; zero is outside the image."""
    return (x.astype(jnp.promote_types(dtype, jnp.float32)) * (2 / (bins - 1)) - 1).astype(dtype)


def by_group(a: Float[Array, "N O"], groups: int, parts: int) -> Float[Array, "groups N O/groups"]:
    """Each group's columns, of all parts."""
    return a.reshape(len(a), parts, groups, -1).transpose(2, 0, 1, 3).reshape(groups, len(a), -1)


def prepare(layers: dict[str, Layer], params: Params, groups: int, cond: Array | None) -> Params:
    """Kernels [groups, taps * I, O / groups] without the masked taps, and biases [groups, 1 or B, O / groups]."""
    prepared = {}
    for name, layer in layers.items():
        taps = (params[name]["kernel"] * causal_mask(layer, groups)).reshape(-1, *layer.shape[2:])
        kernel = taps[: len(taps) - layer.right].reshape(-1, layer.features_out)
        bias = total_bias(params[name], cond)
        prepared[name] = {n: by_group(a, groups, layer.parts) for n, a in (("kernel", kernel), ("bias", bias))}
    return prepared


def buffers(layers: dict[str, Layer], num: int, columns: int, groups: int, dtype: jnp.dtype) -> dict[str, Array]:
    """Rows [above + 1, num, left + columns + right, I] for each layer that sees more than what is new."""

    def empty(layer):
        wide = layer.left + layer.right
        return jnp.zeros((layer.above + 1, num, wide + columns if wide else 1, layer.features_in), dtype)

    return {name: empty(layer) for name, layer in layers.items() if layer.left or groups > 1}


def single(layers: dict[str, Layer], prepared: Params, rows: dict[str, Array], at: Position) -> Callable:
    """conv(name, new [B, I / groups]) -> [B, O / groups] at one site; puts what is new into the dict `rows`."""

    def conv(name, h):
        layer = layers[name]
        if name in rows:
            group = at.group * h.shape[-1]
            column = at.column if layer.left else 0
            here = indices(at.row % (layer.above + 1), 0, column + layer.left, group)
            rows[name] = jax.lax.dynamic_update_slice(rows[name], h[None, :, None], here)
            h = neighbours(rows[name], layer, at.row, column)
        return product(prepared[name], h, at.group)

    return conv


def neighbours(rows: Float[Array, "R B w I"], layer: Layer, row: Array, column: Array) -> Float[Array, "B K"]:
    """What the kernel's taps see, row by row from the top."""
    _, num, _, features = rows.shape
    patches = []
    for above in range(layer.above, -1, -1):
        taps = layer.left + 1 + (layer.right if above else 0)
        start = indices((row - above) % (layer.above + 1), 0, column, 0)
        patches.append(jax.lax.dynamic_slice(rows, start, (1, num, taps, features)).reshape(num, -1))
    return jnp.concatenate(patches, 1) if len(patches) > 1 else patches[0]


def indices(*at: Array | int) -> tuple[Array, ...]:
    """Of one type, as slices need them where 64-bit types are on."""
    return tuple(jnp.asarray(i, jnp.int32) for i in at)


def product(prepared: Params, h: Float[Array, "B K"], group: Array) -> Float[Array, "B O"]:
    """One group of a layer's outputs."""
    kernel, bias = (a[0] if len(a) == 1 else a[group] for a in (prepared["kernel"], prepared["bias"]))
    return h @ kernel + bias


def first_product(
    layer: Layer, prepared: Params, x: Int[Array, "B L 1"], at: Position, columns: int, bins: int
) -> Float[Array, "B O"]:
    """One group of the first layer's outputs at one site, from the image: zeros outside."""
    offsets = [(r, s) for r in range(-layer.above, 1) for s in range(-layer.left, layer.right + 1) if (r, s) <= (0, 0)]
    down, right = np.array(offsets).T
    inside = (at.row + down >= 0) & (at.column + right >= 0) & (at.column + right < columns)
    pixels = (at.row + down) * columns + at.column + right
    sites = pixels[:, None] * layer.features_in + np.arange(layer.features_in)
    values = scaled(jnp.take(x[..., 0], jnp.maximum(sites, 0), axis=1), bins, prepared["bias"].dtype)
    return product(prepared, jnp.where(inside[:, None], values, 0).reshape(len(x), -1), at.group)


def unstacked(blocks: Params) -> list[Params]:
    """The parameters of each of the blocks."""
    return [jax.tree.map(lambda a, b=b: a[b], blocks) for b in range(len(jax.tree.leaves(blocks)[0]))]


def ends(conv: Callable, h: Array) -> Array:
    """The layers after the blocks: ReLU, 1x1, ReLU, 1x1."""
    return conv("output", jax.nn.relu(conv("head", jax.nn.relu(h))))


def init_ends(keys: Array, layers: dict[str, Layer], groups: int) -> Params:
    """Their parameters: predictions start near the uniform one."""
    output = init_layer(keys[1], layers["output"], groups, gain=0.1)
    return {"head": init_layer(keys[0], layers["head"], groups), "output": output}


class Net(NamedTuple):
    """Sizes of a network, and its layers."""

    columns: int
    channels: int
    bins: int
    width: int
    num_blocks: int
    head: int
    num_params: int

    @property
    def inside(self) -> dict[str, Layer]:
        """Of a block."""
        h = self.width
        spatial = Layer(h, h, above=1, left=1, right=1)
        return {"reduce": Layer(2 * h, h), "spatial": spatial, "expand": Layer(h, 2 * h)}

    @property
    def outside(self) -> dict[str, Layer]:
        """Before and after the blocks."""
        return {
            "first": Layer(self.channels, 2 * self.width, above=3, left=3, right=3, mask="A"),
            "head": Layer(2 * self.width, self.head),
            "output": Layer(self.head, self.channels * self.num_params),
        }


def reach(columns: int, channels: int, num_blocks: int) -> int:
    """Sites back to the furthest that an output of either PixelCNN sees: 3 + num_blocks rows up and pixels to the left.

    >>> reach(columns=28, channels=1, num_blocks=7)
    290
    """
    rows = 3 + num_blocks
    return (rows * columns + min(rows, columns - 1)) * channels + channels - 1


@precise
def pixelcnn(
    columns: int, channels: int, bins: int, width: int, num_blocks: int, head: int
) -> Callable[[int], CausalNetwork]:
    """7x7 convolution of mask A; blocks h + W relu(K * relu(W' relu(h))), K 3x3 of mask B; two 1x1 layers.

    Builder num_params -> CausalNetwork on sites [B, rows * columns * channels, 1]. The condition enters the bias of the
    first layer.

    Args:
      width: features of a block's convolution; the map between the blocks has twice as many. A multiple of `channels`.
      head: features of the layer before the output, a multiple of `channels`.

    Reference: van den Oord, Kalchbrenner and Kavukcuoglu (2016), Pixel recurrent neural networks, arXiv:1601.06759,
    sections 3.4 and 3.5, figure 5 and table 1.
    """

    def build(num_params):
        net = Net(columns, channels, bins, width, num_blocks, head, num_params)
        functions = (functools.partial(f, net) for f in (_init, _apply, _start, _step))
        return CausalNetwork(*functions, (4 + num_blocks, columns * channels), reach(columns, channels, num_blocks))

    return build


def _block(conv, h):
    return h + conv("expand", jax.nn.relu(conv("spatial", jax.nn.relu(conv("reduce", jax.nn.relu(h))))))


def _init(net, key, x, cond=None):
    keys = jax.random.split(key, 4)

    def block(key):
        layers = zip(jax.random.split(key, 3), net.inside.items(), strict=True)
        return {name: init_layer(k, layer, net.channels) for k, (name, layer) in layers}

    first = init_layer(keys[0], net.outside["first"], net.channels, 0 if cond is None else cond.shape[-1])
    blocks = jax.vmap(block)(jax.random.split(keys[1], net.num_blocks))
    return {"first": first, "blocks": blocks} | init_ends(keys[2:], net.outside, net.channels)


def _apply(net, params, x, cond=None, key=None):
    image = scaled(x.reshape(len(x), -1, net.columns, net.channels), net.bins, params["output"]["bias"].dtype)
    conv = whole(net.outside, params, net.channels, cond)

    def body(h, params_i):
        return _block(whole(net.inside, params_i, net.channels, None), h), None

    h = jax.lax.scan(body, conv("first", image), params["blocks"])[0]
    return ends(conv, h).reshape(*x.shape[:2], net.num_params)


def _start(net, params, num, cond=None):
    dtype = params["output"]["bias"].dtype
    after = {name: net.outside[name] for name in ("head", "output")}
    layers = [*[net.inside] * net.num_blocks, after]
    return {
        "outside": prepare(net.outside, params, net.channels, cond),
        "blocks": [prepare(net.inside, params_i, net.channels, None) for params_i in unstacked(params["blocks"])],
        "rows": [buffers(a, num, net.columns, net.channels, dtype) for a in layers],
    }


def _step(net, params, cache, x, i, cond=None):
    at, rows = position(i, net.columns, net.channels), [dict(kept) for kept in cache["rows"]]
    h = first_product(net.outside["first"], cache["outside"]["first"], x, at, net.columns, net.bins)
    for prepared, kept in zip(cache["blocks"], rows, strict=False):
        h = _block(single(net.inside, prepared, kept, at), h)
    raw = ends(single(net.outside, cache["outside"], rows[-1], at), h)
    return raw, cache | {"rows": rows}
