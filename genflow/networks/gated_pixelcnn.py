"""Gated PixelCNN: a stack of features for the rows above and one for the row, so that no pixel before is out of sight.

`apply` evaluates whole maps. `step` computes the vertical stack by rows, as soon as a row is complete, and the
horizontal stack site by site (see `networks.pixelcnn`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import CausalNetwork, Params
from genflow.networks.conv import conv2d
from genflow.networks.pixelcnn import (
    Layer,
    buffers,
    by_group,
    ends,
    first_product,
    indices,
    init_ends,
    init_layer,
    position,
    prepare,
    reach,
    scaled,
    single,
    total_bias,
    unstacked,
    whole,
)
from genflow.networks.precision import precise

# Blocks of a scan's body, at most: what a scan keeps for the backward pass is written and read once more, which a small
# network's train step on CPU feels.
UNROLLED = 8


def gate(a: Float[Array, "*B F"]) -> Float[Array, "*B F/2"]:
    """y = tanh(f) * sigmoid(g), f and g the halves of the features. Van den Oord et al. (2016), equation 2."""
    f, g = jnp.split(a, 2, axis=-1)
    return jnp.tanh(f) * jax.nn.sigmoid(g)


def vertical(params: Params, v: Float[Array, "B H W I"], cond: Array | None, above: int) -> Float[Array, "B h W O"]:
    """The gate's arguments, with `above` rows of zeros on top: what row r and the rows over it say."""
    side = params["kernel"].shape[1] // 2
    return conv2d(v, params["kernel"], ((above, 0), (side, side))) + total_bias(params, cond)[:, None, None]


def horizontal(conv: Callable, h: Array, link: Array) -> Array:
    """What the row says: W * (tanh(f) sigmoid(g)), f and g of the pixels before and, through `link`, those above."""
    return conv("mix", gate(conv("horizontal", h) + link))


def init_vertical(key: Array, shape: tuple[int, ...], cond_dims: int) -> dict[str, Params]:
    """The convolution of the vertical stack, without a mask, and its link to the horizontal one."""
    key_conv, key_link = jax.random.split(key)
    rows, columns, features_in, features_out = shape
    layer = Layer(rows * columns * features_in, features_out)
    conv = init_layer(key_conv, layer, 1, cond_dims)
    link = init_layer(key_link, Layer(features_out, features_out), 1)["kernel"]
    return {"vertical": conv | {"kernel": conv["kernel"].reshape(shape)}, "link": {"kernel": link}}


class Net(NamedTuple):
    """Sizes of a network, and its layers after the vertical stack."""

    columns: int
    channels: int
    bins: int
    width: int
    num_blocks: int
    head: int
    num_params: int

    @property
    def first(self) -> dict[str, Layer]:
        """Of the horizontal stack, from the image."""
        p = self.width
        return {"horizontal": Layer(self.channels, 2 * p, left=3, mask="A", parts=2), "mix": Layer(p, p)}

    @property
    def inside(self) -> dict[str, Layer]:
        """Of the horizontal stack, in a block."""
        p = self.width
        return {"horizontal": Layer(p, 2 * p, left=1, parts=2), "mix": Layer(p, p)}

    @property
    def outside(self) -> dict[str, Layer]:
        """After the blocks."""
        return {"head": Layer(self.width, self.head), "output": Layer(self.head, self.channels * self.num_params)}


@precise
def gated_pixelcnn(
    columns: int, channels: int, bins: int, width: int, num_blocks: int, head: int
) -> Callable[[int], CausalNetwork]:
    """y = tanh(W_f * x + V_f^T h) sigmoid(W_g * x + V_g^T h) in two stacks: 7x7, blocks of 3x3, then two 1x1 layers.

    Builder num_params -> CausalNetwork on sites [B, rows * columns * channels, 1].

    Args:
      width: features of either stack, a multiple of `channels`; a gate has twice as many arguments.
      head: features of the layer before the output, a multiple of `channels`.

    Reference: van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, arXiv:1606.05328,
    equations 2 to 4 and figure 2.
    """

    def build(num_params):
        net = Net(columns, channels, bins, width, num_blocks, head, num_params)
        functions = (functools.partial(f, net) for f in (_init, _apply, _start, _step))
        return CausalNetwork(*functions, (4 + num_blocks, columns * channels), reach(columns, channels, num_blocks))

    return build


def _init(net, key, x, cond=None):
    keys, p = jax.random.split(key, 4), net.width
    dims = 0 if cond is None else cond.shape[-1]

    def stacks(key, layers, shape):
        keys = jax.random.split(key, 3)
        entered = zip(layers, keys, (dims, 0), strict=False)
        row = {name: init_layer(k, layers[name], net.channels, d) for name, k, d in entered}
        return row | init_vertical(keys[2], shape, dims)

    blocks = jax.vmap(lambda key: stacks(key, net.inside, (2, 3, p, 2 * p)))
    return {
        "first": stacks(keys[0], net.first, (3, 7, net.channels, 2 * p)),
        "blocks": blocks(jax.random.split(keys[1], net.num_blocks)),
    } | init_ends(keys[2:], net.outside, net.channels)


def _apply(net, params, x, cond=None, key=None):
    image = scaled(x.reshape(len(x), -1, net.columns, net.channels), net.bins, params["output"]["bias"].dtype)

    def both(params, layers, v, h):
        a = vertical(params["vertical"], v, cond, params["vertical"]["kernel"].shape[0] - 1)
        link = conv2d(a, params["link"]["kernel"])
        above = jnp.pad(link, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        return gate(a), horizontal(whole(layers, params, net.channels, cond), h, above)

    def body(carry, params_i):
        v, new = both(params_i, net.inside, *carry)
        return (v, carry[1] + new), None

    start, unroll = both(params["first"], net.first, image, image), min(net.num_blocks, UNROLLED)
    _, h = jax.lax.scan(body, start, params["blocks"], unroll=unroll)[0]
    return ends(whole(net.outside, params, net.channels, None), h).reshape(*x.shape[:2], net.num_params)


def _start(net, params, num, cond=None):
    stacks, dtype = [params["first"], *unstacked(params["blocks"])], params["output"]["bias"].dtype
    layers = [{"mix": net.first["mix"]}, *[net.inside] * net.num_blocks, net.outside]
    links = (net.channels, num, net.columns, 2 * net.width // net.channels)
    return {
        "vertical": stacks,
        "first": prepare(net.first, params["first"], net.channels, cond),
        "blocks": [prepare(net.inside, params_i, net.channels, cond) for params_i in stacks[1:]],
        "outside": prepare(net.outside, params, net.channels, None),
        "rows": [buffers(a, num, net.columns, net.channels, dtype) for a in layers],
        "above": [jnp.zeros((num, 1, net.columns, net.width), dtype) for _ in stacks[1:]],
        "links": [jnp.zeros(links, dtype) for _ in stacks],
    }


def _complete_row(net, stacks, above, x, row, cond):
    """The vertical stack at a row that is complete, from the image and, in the blocks, from the row above."""
    image = scaled(x.reshape(len(x), -1, net.columns, net.channels), net.bins, above[0].dtype)
    seen = [jax.lax.dynamic_slice_in_dim(jnp.pad(image, ((0, 0), (2, 0), (0, 0), (0, 0))), row, 3, axis=1)]
    rows, links = [], []
    for params, over in zip(stacks, [*above, None], strict=True):
        a = vertical(params["vertical"], jnp.concatenate(seen, 1), cond, 0)
        link = by_group((a @ params["link"]["kernel"][0, 0]).reshape(-1, 2 * net.width), net.channels, 2)
        links.append(link.reshape(net.channels, len(x), net.columns, -1))
        rows.append(gate(a))
        seen = [over, rows[-1]]
    return rows[:-1], links


def _step(net, params, cache, x, i, cond=None):
    at, rows = position(i, net.columns, net.channels), [dict(kept) for kept in cache["rows"]]
    new_row = (at.row > 0) & (at.column == 0) & (at.group == 0)
    above, links = jax.lax.fori_loop(  # over no row or one; a loop updates in place what it carries
        at.row - new_row,
        at.row,
        lambda row, carry: _complete_row(net, cache["vertical"], carry[0], x, row, cond),
        (cache["above"], cache["links"]),
    )

    def link(layer):
        start, size = indices(at.group, 0, at.column, 0), (1, len(x), 1, links[layer].shape[-1])
        return jax.lax.dynamic_slice(links[layer], start, size)[0, :, 0]

    conv = single(net.first, cache["first"], rows[0], at)

    def first_conv(name, h):
        if name == "horizontal":
            return first_product(net.first[name], cache["first"][name], x, at, net.columns, net.bins)
        return conv(name, h)

    h = horizontal(first_conv, None, link(0))
    for layer, prepared in enumerate(cache["blocks"], 1):
        h = h + horizontal(single(net.inside, prepared, rows[layer], at), h, link(layer))
    raw = ends(single(net.outside, cache["outside"], rows[-1], at), h)
    return raw, cache | {"rows": rows, "above": above, "links": links}
