"""One site of PixelCNN++ at a time: every layer computes what has become computable and keeps what is needed later.

The stream above sees whole rows only: it is computed a row at a time, when the row's first site is. The stream before
is computed at the site. A layer at half the resolution sees what is seen at its even row and column: its turn is there,
and what it says serves four sites (two rows).
"""

import operator

import jax
import jax.numpy as jnp

from genflow.core import Params
from genflow.networks.hourglass import Evaluation, above_stream, before_stream, normalized
from genflow.networks.shifted import double, halve, halve_windows, pixels, shifted_conv


def start_streams(params: Params, num: int, columns: int, cond=None) -> Params:
    """The layers, normalized once, and zeros where they keep what they have seen."""

    def above_memory(columns, channels):
        return jnp.zeros((num, 1, columns, channels), dtype)

    def before_memory(columns, channels):
        return jnp.zeros((num, 2, columns + 1, channels), dtype)  # even and odd rows, a zero on the left

    dtype = params["before"]["head"]["kernel"].dtype
    cache = {
        "above": _start_stream(params["above"], columns, above_memory, cond),
        "before": _start_stream(params["before"], columns, before_memory, cond),
    }
    channels = params["above"]["stem"]["kernel"].shape[2]
    image = jax.ShapeDtypeStruct((num, 2, columns + 2, channels), dtype)
    features = jax.eval_shape(
        lambda cache, image: above_stream(_at_row(jnp.int32(0)), cache, image)[0], cache["above"], image
    )
    return cache | {"features": _zeros(features)}


def step_streams(cache: Params, x, i, columns: int, scale: float):
    """(raw [B, num_params], cache) of site i of x [B, L, C]."""
    row, column = i // columns, i % columns
    dtype = cache["before"]["head"]["kernel"].dtype

    def compute_row(_, carry):
        image = pixels(x, columns, row + jnp.arange(-2, 0), jnp.arange(-1, columns + 1), scale)
        return above_stream(_at_row(row), carry[1], image.astype(dtype))

    features, above = _once(column == 0, compute_row, (cache["features"], cache["above"]))
    image = pixels(x, columns, row + jnp.arange(-1, 1), column + jnp.arange(-1, 2), scale)
    raw, before = before_stream(_at_site(row, column), cache["before"], image.astype(dtype), features)
    return raw[:, 0, 0], {"above": above, "before": before, "features": features}


def _once(condition, body, carry):
    """Body(0, carry) where the condition holds, as a loop of one round or none: loops change their carry in place."""
    return jax.lax.fori_loop(0, jnp.asarray(condition, jnp.int32), body, carry)


def _zeros(shapes):
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def _start_stream(p, columns, memory, cond):
    layers = {name: normalized(layer) for name, layer in p.items() if name != "hourglass"}
    return layers | {"hourglass": _start_hourglass(p["hourglass"], columns, memory, cond)}


def _start_hourglass(p, columns, memory, cond):
    cache = {name: _start_blocks(p[name], columns, memory, cond) for name in ("encode", "decode")}
    if "below" not in p:
        return cache
    level = _start_hourglass(p["below"]["level"], columns // 2, memory, cond)
    down, up = normalized(p["below"]["down"]), normalized(p["below"]["up"])
    down["seen"] = memory(columns, down["kernel"].shape[2])
    num, dtype = down["seen"].shape[0], down["seen"].dtype
    up["seen"] = jnp.zeros((num, 2, columns, up["kernel"].shape[3]), dtype)
    return cache | {"below": {"down": down, "level": level, "up": up}}


def _start_blocks(blocks, columns, memory, cond):
    def start(block):
        layers = {name: normalized(layer, cond) for name, layer in block.items()}
        for name in ("first", "second"):
            layers[name]["seen"] = memory(columns, layers[name]["kernel"].shape[2])
        return layers

    num = blocks["first"]["bias"].shape[0]
    return tuple(start(jax.tree.map(operator.itemgetter(k), blocks)) for k in range(num))


def _linear(layer, x, op, gain=1.0, cond=None):
    return op(x, layer["kernel"]) + layer["bias"], layer


def _repeat(block, blocks, x, given, key):
    trace, changed = [x], []
    for k, p in enumerate(blocks):
        x, p = block(p, x, [each[k] for each in given], None)
        trace.append(x)
        changed.append(p)
    return tuple(trace), tuple(changed)


def _at_row(row):
    """Evaluates the row `row` of the stream above; images have one row, a layer has seen the one before it."""

    def convolve(layer, x, gain=1.0, cond=None):
        window = jnp.concatenate([layer["seen"], x], axis=1)
        return shifted_conv(window, layer["kernel"], 0) + layer["bias"], layer | {"seen": x}

    def below(p, x, inner):
        window = jnp.concatenate([p["down"]["seen"], x], axis=1)

        def compute(_, carry):
            p, _ = carry
            h, features, level = inner(
                _at_row(row // 2), p["level"], _linear(p["down"], window, lambda x, k: halve(x, k, 0))[0]
            )
            both = _linear(p["up"], h, double)[0]
            return p | {"level": level, "up": p["up"] | {"seen": both}}, features

        features = _zeros(jax.eval_shape(compute, 0, (p, None))[1])
        p, features = _once(row % 2 == 0, compute, (p, features))
        up = jax.lax.dynamic_slice_in_dim(p["up"]["seen"], row % 2, 1, axis=1)
        return up, features, p | {"down": p["down"] | {"seen": x}}

    return Evaluation(_linear, convolve, _repeat, below)


def _at_site(row, column):
    """Evaluates one site of the stream before; images have one pixel, a layer has seen two rows."""

    def look(layer, x):
        """The window [B, 2, 2, C] that ends at x, and the layer that has seen x."""
        seen = jax.lax.dynamic_update_slice(layer["seen"], x, (0, row % 2, column + 1, 0))
        size = (x.shape[0], 1, 2, x.shape[3])
        parts = [jax.lax.dynamic_slice(seen, (0, (row + d) % 2, column, 0), size) for d in (1, 0)]
        return jnp.concatenate(parts, axis=1), layer | {"seen": seen}

    def convolve(layer, x, gain=1.0, cond=None):
        window, layer = look(layer, x)
        return halve_windows(window, layer["kernel"]) + layer["bias"], layer

    def below(p, x, inner):
        window, down = look(p["down"], x)

        def compute(_, p):
            h, _, level = inner(
                _at_site(row // 2, column // 2), p["level"], _linear(p["down"], window, halve_windows)[0]
            )
            four = _linear(p["up"], h, double)[0]
            seen = jax.lax.dynamic_update_slice(p["up"]["seen"], four, (0, 0, column, 0))
            return p | {"level": level, "up": p["up"] | {"seen": seen}}

        p = _once((row % 2 == 0) & (column % 2 == 0), compute, p | {"down": down})
        size = (x.shape[0], 1, 1, p["up"]["seen"].shape[3])
        return jax.lax.dynamic_slice(p["up"]["seen"], (0, row % 2, column, 0), size), None, p

    def at(features):
        return tuple(jax.lax.dynamic_slice_in_dim(f, column, 1, axis=2) for f in features)

    return Evaluation(_linear, convolve, _repeat, below, at)
