"""PixelCNN++: two streams of shifted convolutions, one of the rows above a pixel and one of the pixels before it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genflow.core import CausalNetwork
from genflow.networks.hourglass import above_stream, applying, before_stream, initializing
from genflow.networks.pixelcnnpp_steps import start_streams, step_streams
from genflow.networks.precision import precise
from genflow.networks.shifted import pixels


@precise
def pixelcnnpp(
    width: int, stages: int, blocks: int, bins: int, columns: int, dropout: float = 0.0
) -> Callable[[int], CausalNetwork]:
    """Raw = W elu(before(x; above(x))), both streams hourglasses of blocks h + a sigmoid(b) at `stages` resolutions.

    Builder num_params -> CausalNetwork on sites [B, H * columns, C] of values 0 .. bins - 1; H and `columns` are
    multiples of 2^(stages - 1). Weights are normalized, and scaled by the first batch.

    Steps in float32 give `apply` to a few 1e-6, being sums in another order: now and then a draw of a logistic falls on
    the other side of a rounding. In float64 none was seen to.

    Reference: Salimans et al. (2017), PixelCNN++, arXiv:1701.05517, sections 2.3 to 2.5, and the official code.
    """
    scale = 2 / (bins - 1)

    def build(num_params):
        def init(key, x, cond=None):
            cond_dims = 0 if cond is None else cond.shape[-1]
            params = _parameters(key, (width, stages, blocks), x.shape[-1], cond_dims, num_params)
            return evaluate(initializing(), params, x, cond)[1]

        def apply(params, x, cond=None, key=None):
            raw, _ = evaluate(applying(dropout), params, x, cond, key)
            return raw.reshape(*x.shape[:2], num_params)

        def evaluate(way, params, x, cond, key=None):
            keys = (None, None) if key is None else jax.random.split(key)
            rows = jnp.arange(-2, x.shape[1] // columns)
            image = pixels(x, columns, rows, jnp.arange(-1, columns + 1), scale)
            image = image.astype(params["before"]["head"]["bias"].dtype)
            features, above = above_stream(way, params["above"], image[:, :-1], cond, keys[0])
            raw, before = before_stream(way, params["before"], image[:, 1:], features, cond, keys[1])
            return raw, {"above": above, "before": before}

        def start(params, num, cond=None):
            return start_streams(params, num, columns, cond)

        def step(params, cache, x, i, cond=None):
            return step_streams(cache, x, i, columns, scale)

        return CausalNetwork(init, apply, start, step)

    return build


def _parameters(key, sizes, channels, cond_dims, num_params):
    """Random directions; scales and biases are set by the first batch."""
    width = sizes[0]
    shapes = {
        "above": {
            "stem": _layer((2, 3, channels + 1, width)),
            "hourglass": _hourglass(*sizes, (2, 3), 0, cond_dims),
        },
        "before": {
            "row": _layer((1, 3, channels + 1, width)),
            "left": _layer((2, 1, channels + 1, width)),
            "hourglass": _hourglass(*sizes, (2, 2), 1, cond_dims),
            "head": _layer((1, 1, width, num_params)),
        },
    }
    return _drawn(key, shapes)


def _hourglass(width, stages, blocks, kernel, fed, cond_dims):
    """Fed: 1 where another stream is an input of each block."""
    last = stages == 1
    layers = {
        "encode": _blocks(blocks, width, kernel, fed, cond_dims),
        "decode": _blocks(blocks + (not last), width, kernel, fed + 1, cond_dims),
    }
    if last:
        return layers
    level = _hourglass(width, stages - 1, blocks, kernel, fed, cond_dims)
    between = {name: _layer((*kernel, width, width)) for name in ("down", "up")}
    return layers | {"below": between | {"level": level}}


def _blocks(num, width, kernel, shortcuts, cond_dims):
    layers = {
        "first": _layer((*kernel, 2 * width, width), 0, (num,)),
        "second": _layer((*kernel, 2 * width, 2 * width), cond_dims, (num,)),
    }
    return layers | ({"shortcut": _layer((1, 1, 2 * width * shortcuts, width), 0, (num,))} if shortcuts else {})


def _layer(shape, cond_dims=0, copies=()):
    """Shapes of what is drawn, and the rest as it is."""
    outputs = (*copies, shape[-1])
    layer = {"kernel": jax.ShapeDtypeStruct((*copies, *shape), float)}
    layer |= {"cond": jax.ShapeDtypeStruct((*copies, cond_dims, shape[-1]), float)} if cond_dims else {}
    return layer | {"scale": jnp.ones(outputs), "bias": jnp.zeros(outputs)}


def _drawn(key, tree):
    """Normal numbers of deviation 0.05 in place of shapes, all from one draw: many draws take long to compile."""
    leaves, structure = jax.tree.flatten(tree)
    sizes = [leaf.size if isinstance(leaf, jax.ShapeDtypeStruct) else 0 for leaf in leaves]
    parts = jnp.split(0.05 * jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    drawn = [part.reshape(leaf.shape) if size else leaf for leaf, part, size in zip(leaves, parts, sizes, strict=True)]
    return jax.tree.unflatten(structure, drawn)
