"""PixelRNN: two-dimensional LSTMs over an image, Row LSTM and Diagonal BiLSTM, with residual connections.

A site is one channel of one pixel, in raster order. Features stand in C groups, one for each channel: those of group c
at a pixel see the channels before c there, and pixels before it.

A step computes one pixel in every layer, from the states of its neighbours.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from genflow.core import CausalNetwork
from genflow.networks.conv import conv2d
from genflow.networks.lstm import LAYERS, group_mask, product, random_kernel
from genflow.networks.precision import precise

ROWS, COLUMNS = 4, 7  # of the first layer's 7x7 kernel, those that mask A leaves


@precise
def pixelrnn(
    shape: tuple[int, int, int], bins: int, layer: str, width: int, layers: int
) -> Callable[[int], CausalNetwork]:
    """h_0 = conv_A(x), h_l = h_(l-1) + conv_1x1(LSTM_l(h_(l-1))), raw = conv_1x1(relu(conv_1x1(relu(h)))), masked.

    Builder num_params -> CausalNetwork on sites [B, H W C, 1], whose values enter as 2 x / (bins - 1) - 1.

    Args:
      layer: 'row' or 'diagonal'.
      width: h, units of an LSTM; the maps between the LSTMs, and the hidden output layer, have 2 h features.

    Reference: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759, sections 3.1 to 3.4,
      table 1; cond enters the gates of every LSTM.
    """
    H, W, C = shape
    lstm = LAYERS[layer]

    def build(num_params):
        def init(key, x, cond=None):
            return _init(key, C, num_params, width, layers, lstm, 0 if cond is None else cond.shape[-1])

        def apply(params, x, cond=None, key=None):
            image = scaled(x[..., 0], params).reshape(-1, H, W, C)
            kernel = params["input"]["kernel"] * _first_mask(C, 2 * width)
            h = conv2d(image, kernel, ((ROWS - 1, 0), (COLUMNS // 2,) * 2)) + params["input"]["bias"]

            @jax.checkpoint
            def body(h, layer):
                return h + product(lstm.apply(layer["lstm"], h, C, cond), layer["up"], C), None

            h = jax.lax.scan(body, h, params["layers"])[0]
            return _output(params, h, C).reshape(x.shape[0], H * W * C, num_params)

        def start(params, num, cond=None):
            dtype = params["input"]["bias"].dtype
            return [lstm.start(num, W, width, dtype) for _ in range(layers)]

        def step(params, cache, x, i, cond=None):
            pixel, channel = i // C, i % C
            place, new = (pixel // W, pixel % W, channel), []
            at, inside = _neighbours(place, W, C)
            kernel = (params["input"]["kernel"] * _first_mask(C, 2 * width)).reshape(-1, 2 * width)
            h = jnp.where(inside, scaled(x[:, at, 0], params), 0) @ kernel + params["input"]["bias"]
            for number, memory in enumerate(cache):
                layer = jax.tree.map(lambda a, number=number: a[number], params["layers"])
                state, memory = lstm.step(layer["lstm"], memory, h, C, place, cond)
                h, new = h + product(state, layer["up"], C), [*new, memory]
            raw = _output(params, h, C).reshape(-1, C, num_params)
            return jax.lax.dynamic_index_in_dim(raw, channel, axis=1, keepdims=False), new

        def scaled(values, params):
            dtype = params["input"]["bias"].dtype
            return (2 * values.astype(jnp.promote_types(dtype, jnp.float32)) / (bins - 1) - 1).astype(dtype)

        return CausalNetwork(init, apply, start, step)

    return build


def _init(key, channels, num_params, width, layers, lstm, cond_dims):
    """Normal weights of variance 1 / fan-in, but a tenth of that size for the output: almost uniform at the start."""
    key_first, key_layers, key_hidden, key_output = jax.random.split(key, 4)
    wide, allowed = 2 * width, _first_mask(channels, 2 * width)

    def init_layer(key):
        key_lstm, key_up = jax.random.split(key)
        return {"lstm": lstm.init(key_lstm, width, cond_dims), "up": random_kernel(key_up, width, wide)}

    kernels = {
        "input": jax.random.normal(key_first, allowed.shape) / np.sqrt(allowed[..., -1].sum()),
        "hidden": random_kernel(key_hidden, wide, wide),
        "output": 0.1 * random_kernel(key_output, wide, channels * num_params),
    }
    params = {name: {"kernel": kernel, "bias": jnp.zeros(kernel.shape[-1])} for name, kernel in kernels.items()}
    return params | {"layers": jax.vmap(init_layer)(jax.random.split(key_layers, layers))}


def _output(params, h, channels):
    for name in ("hidden", "output"):
        h = product(jax.nn.relu(h), params[name]["kernel"], channels) + params[name]["bias"]
    return h


def _neighbours(place, width, channels):
    """Sites of the pixels under the first layer's kernel, in its order, and whether the image has them."""
    rows, columns = np.mgrid[1 - ROWS : 1, -(COLUMNS // 2) : COLUMNS // 2 + 1].reshape(2, -1)
    row, column = place[0] + rows, place[1] + columns
    inside = (row >= 0) & (column >= 0) & (column < width)
    at = jnp.where(inside, row * width + column, 0)[:, None] * channels + jnp.arange(channels)
    return at.reshape(-1), jnp.repeat(inside, channels)


def _first_mask(channels: int, features: int) -> Bool[np.ndarray, "rows columns channels features"]:
    """Mask A: the pixels before the last row's middle, and of that pixel the channels before the feature's own."""
    allowed = np.ones((ROWS, COLUMNS, channels, features), bool)
    allowed[-1, COLUMNS // 2] = group_mask(channels, features, channels, strict=True)
    allowed[-1, COLUMNS // 2 + 1 :] = False
    return allowed
