"""The streams of PixelCNN++: hourglasses of gated residual blocks, written once for every way to evaluate them.

A stream's blocks work at one resolution; below it the same happens at half the resolution; then blocks again, with
short-cuts across. What a convolution does with an image, a batch that initializes it, or a single site that needs what
was computed before, is said by an `Evaluation`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genflow.core import Params
from genflow.networks.conv import conv2d
from genflow.networks.flowpp import concat_elu
from genflow.networks.precision import wide
from genflow.networks.shifted import double, halve, shifted_conv


class Features(NamedTuple):
    """What a stream says after each block [B, H, W, width], and the same below, at half the resolution."""

    encode: tuple | jax.Array
    decode: tuple | jax.Array
    below: tuple | None


class Evaluation(NamedTuple):
    """How to evaluate layers. All but `at` also return the parameters, changed if this is how they come about.

    linear(layer, x, op, gain=1.0, cond=None) -> (op(x, kernel) + bias, layer)
    convolve(layer, x, gain=1.0, cond=None) -> (shifted convolution + bias, layer)
    repeat(block, blocks, x, given, key) -> (x and the output of each block, blocks); given: inputs for each block
    below(p, x, inner) -> (x, features, p): inner(evaluation, p, x) at half the resolution
    at(features) -> those where this evaluation is
    rate: of dropout, where a key is given
    """

    linear: Callable
    convolve: Callable
    repeat: Callable
    below: Callable
    at: Callable = lambda features: features
    rate: float = 0.0


def above_stream(way: Evaluation, p: Params, image, cond=None, key=None):
    """Features of the rows above, and p. Image: [B, rows + 1, columns + 2, C], from two rows above the first output."""
    x, stem = way.linear(p["stem"], image, _unpadded)
    _, features, hourglass = _hourglass(way, p["hourglass"], x, None, cond, key)
    return features, {"stem": stem, "hourglass": hourglass}


def before_stream(way: Evaluation, p: Params, image, features: Features, cond=None, key=None):
    """(raw, p) of the pixels before. Image: as for `above_stream`, but from one row above the first output."""
    row, row_layer = way.linear(p["row"], image[:, :-1], _unpadded)
    left, left_layer = way.linear(p["left"], image[:, :, :-2], _unpadded)
    x, _, hourglass = _hourglass(way, p["hourglass"], row + left, features, cond, key)
    raw, head = way.linear(p["head"], jax.nn.elu(x), conv2d)
    return raw, {"row": row_layer, "left": left_layer, "hourglass": hourglass, "head": head}


def _unpadded(x, kernel):
    return conv2d(x, kernel, ((0, 0), (0, 0)))


def _hourglass(way, p, x, other, cond, key):
    """(x, features, p); other: the features of the stream that feeds this one."""
    keys = (None, None, None) if key is None else jax.random.split(key, 3)

    def block(p, x, given, key):
        return _gated_block(way, p, x, given, cond, key)

    def inner(way, p, x):
        return _hourglass(way, p, x, other and other.below, cond, keys[1])

    trace, encode = way.repeat(block, p["encode"], x, () if other is None else (way.at(other.encode),), keys[0])
    x, skips, below, features = trace[-1], trace[:-1], {}, None
    if "below" in p:
        x, features, below["below"] = way.below(p["below"], x, inner)
        skips = trace
    given = (skips[::-1],) if other is None else (way.at(other.decode), skips[::-1])
    after, decode = way.repeat(block, p["decode"], x, given, keys[2])
    return after[-1], Features(trace[1:], after[1:], features), {"encode": encode, "decode": decode} | below


def _gated_block(way, p, x, given, cond, key):
    """x + a sigmoid(b), (a, b) = conv(f(conv(f(x)) + W f(given))) + V cond, f = concat_elu."""
    changed = {}
    h, changed["first"] = way.convolve(p["first"], concat_elu(x))
    if given:
        shortcut, changed["shortcut"] = way.linear(p["shortcut"], concat_elu(jnp.concatenate(given, -1)), conv2d)
        h += shortcut
    h = concat_elu(h)
    if key is not None and way.rate:
        h = jnp.where(jax.random.bernoulli(key, 1 - way.rate, h.shape), h / (1 - way.rate), 0)
    h, changed["second"] = way.convolve(p["second"], h, 0.1, cond)
    a, b = jnp.split(h, 2, axis=-1)
    return x + a * jax.nn.sigmoid(b), changed


def applying(rate: float = 0.0) -> Evaluation:
    """Evaluates whole images; blocks are a scan, of which the backward pass keeps the inputs."""

    def linear(layer, x, op, gain=1.0, cond=None):
        layer = normalized(layer, cond)
        return op(x, layer["kernel"]) + layer["bias"], None

    return _whole(linear, jax.checkpoint, rate)


def initializing() -> Evaluation:
    """Evaluates the first batch, from which each layer takes scale and bias: mean 0, deviation `gain` at its output."""

    def linear(layer, x, op, gain=1.0, cond=None):
        y = op(x, normalized(layer | {"scale": jnp.ones_like(layer["scale"])})["kernel"])
        mean, scale = y.mean((0, 1, 2)), gain * jax.lax.rsqrt(y.var((0, 1, 2)) + 1e-8)
        layer = layer | {"scale": scale, "bias": -scale * mean}
        return scale * y + normalized(layer, cond)["bias"], layer

    return _whole(linear)


def _whole(linear, checkpoint=lambda body: body, rate=0.0):
    def repeat(block, blocks, x, given, key):
        num = blocks["first"]["bias"].shape[0]
        keys = None if key is None else jax.random.split(key, num)

        def body(x, inputs):
            x, changed = block(inputs[0], x, *inputs[1:])
            return x, (x, changed)

        outputs, changed = jax.lax.scan(checkpoint(body), x, (blocks, given, keys), num)[1]
        return jnp.concatenate([x[None], outputs]), changed

    def below(p, x, inner):
        x, down = linear(p["down"], x, halve)
        x, features, level = inner(way, p["level"], x)
        x, up = linear(p["up"], x, double)
        return x, features, {"down": down, "level": level, "up": up}

    def convolve(layer, x, gain=1.0, cond=None):
        return linear(layer, x, shifted_conv, gain, cond)

    way = Evaluation(linear, convolve, repeat, below, rate=rate)
    return way


def normalized(layer: Params, cond=None) -> Params:
    """The kernel scale * v / |v| of a layer, and its bias, which is one for each example where there is a condition.

    Reference: Salimans and Kingma (2016), Weight normalization, arXiv:1602.07868, equation 2.
    """
    v = layer["kernel"]
    kernel = (v * (layer["scale"] * jax.lax.rsqrt(jnp.square(wide(v)).sum((0, 1, 2))))).astype(v.dtype)
    if cond is None or "cond" not in layer:
        return {"kernel": kernel, "bias": layer["bias"]}
    return {"kernel": kernel, "bias": layer["bias"] + (cond @ layer["cond"])[:, None, None]}
