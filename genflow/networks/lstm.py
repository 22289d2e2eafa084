"""The recurrent layers of PixelRNN, on maps in groups of features: one for each channel of a pixel.

[o, f, i, g] = K_ss * h + K_is * x,  c' = sigmoid(f) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c'). Row LSTM takes c
and h from the row above, Diagonal BiLSTM from the left and from above, and in its second direction from the right.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from genflow.core import Params
from genflow.networks.precision import matmul_precision, wide, wide_products


class Recurrent(NamedTuple):
    """A layer whose state at a pixel sees pixels before it, and of its own pixel what its group of features may see.

    init(key, width, cond_dims) -> params
    apply(params, x [B, H, W, 2 width], groups, cond=None) -> states [B, H, W, width]
    start(num, columns, width, dtype) -> cache
    step(params, cache, x [B, 2 width], groups, place, cond=None) -> (states [B, width], cache): those of one pixel,
        whose place is (row, column, channel); it is computed once for each channel, in order, and is right at the last
    """

    init: Callable[..., Params]
    apply: Callable[..., Float[Array, "B H W width"]]
    start: Callable[..., PyTree]
    step: Callable[..., tuple[Float[Array, "B width"], PyTree]]


def group_mask(features_in: int, features_out: int, groups: int, strict: bool = False) -> Bool[np.ndarray, "I O"]:
    """Connections from a group to itself and to those after it (mask B), or only to those after it (strict, mask A).

    >>> group_mask(3, 3, 3).astype(int).tolist()
    [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    """
    before, after = (np.arange(size) * groups // size for size in (features_in, features_out))
    return before[:, None] < after if strict else before[:, None] <= after


def product(x: Float[Array, "*B I"], kernel: Float[Array, "I O"], groups: int) -> Float[Array, "*B O"]:
    """A 1x1 convolution with mask B."""
    return x @ (kernel * group_mask(*kernel.shape, groups))


def random_kernel(key: Array, features_in: int, features_out: int) -> Float[Array, "I O"]:
    """N(0, 1 / features_in)."""
    return jax.random.normal(key, (features_in, features_out)) / np.sqrt(features_in).astype(np.float32)


def _init_gates(key, inputs, states, width, cond_dims):
    """Kernels from so many features of the input and of the states to the four gates."""
    key_input, key_state, key_cond = jax.random.split(key, 3)
    params = {
        "input": random_kernel(key_input, inputs, 4 * width),
        "state": random_kernel(key_state, states, 4 * width),
        "bias": jnp.zeros(4 * width),
    }
    return params | {"cond": random_kernel(key_cond, cond_dims, 4 * width)} if cond_dims else params


def _gate_mask(features_in, width, groups):
    return np.tile(group_mask(features_in, width, groups), 4)


def _bias(params, cond):
    """[B or 1, 4 width]."""
    bias = params["bias"][None]
    return bias if cond is None else bias + cond.astype(bias.dtype) @ params["cond"]


def _lstm(gates, c):
    """New (h, c), c in float32 or wider. Van den Oord et al. (2016), equation 3."""
    o, f, i, g = jnp.split(wide(gates), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(gates.dtype), c


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def recurrence(
    gates: Float[Array, "T B N 4F"], kernel: Float[Array, "S 4F"], neighbours: Callable, precision: str | None
) -> Float[Array, "T B N F"]:
    """States of an LSTM along T, whose gates are `gates` + neighbours(last states) @ kernel; zeros come before them.

    The kernel's gradient is one product of all states with all gradients of gates: as a sum over the scan, several
    devices would add it up at every turn.
    """
    return _turns(gates, kernel, neighbours, precision)


def _turns(gates, kernel, neighbours, precision):
    def turn(carry, gates):
        h, c = carry
        h, c = _lstm(gates + neighbours(h) @ kernel, c)
        return (h, c), h

    zeros = jnp.zeros((*gates.shape[1:-1], gates.shape[-1] // 4), gates.dtype)
    with jax.default_matmul_precision(precision):
        return jax.lax.scan(turn, (zeros, wide(zeros)), gates)[1]


def _forward(gates, kernel, neighbours, precision):
    states, vjp = jax.vjp(lambda gates: _turns(gates, kernel, neighbours, precision), gates)
    return states, (states, vjp)


def _backward(neighbours, precision, saved, g):
    states, vjp = saved
    with jax.default_matmul_precision(precision):
        (grad,) = vjp(g)
        last = jnp.pad(states, ((1, 0), *[(0, 0)] * (states.ndim - 1)))[:-1]
        seen = jax.vmap(neighbours)(last)
        return grad, wide_products(lambda seen, grad: jnp.tensordot(seen, grad, ((0, 1, 2), (0, 1, 2))))(seen, grad)


recurrence.defvjp(_forward, _backward)


def _write(memory, new, *at):
    """Writes one place of memory [*places, B, features], as an update that stays in place."""
    return jax.lax.dynamic_update_slice(memory, new[(None,) * len(at)], (*at, 0, 0))


def row_lstm() -> Recurrent:
    """States of a row from those of three neighbours in the row above; the input from the pixel and its left neighbour.

    Reference: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759, section 3.1 (k = 3).
    """

    def init(key, width, cond_dims):
        return _init_gates(key, 4 * width, 3 * width, width, cond_dims)

    def input_kernel(params, groups):
        width = params["state"].shape[1] // 4
        left = np.ones((2 * width, 4 * width), bool)
        return params["input"] * np.concatenate([left, _gate_mask(2 * width, width, groups)])

    def apply(params, x, groups, cond=None):
        left = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        inputs = jnp.concatenate([left, x], -1) @ input_kernel(params, groups) + _bias(params, cond)[:, None, None]

        return recurrence(inputs.swapaxes(0, 1), params["state"], _three_above, matmul_precision()).swapaxes(0, 1)

    def start(num, columns, width, dtype):
        """Two rows of states, with a zero on each side, and two pixels of the input: the last and the new one."""
        return {
            "h": jnp.zeros((2, columns + 2, num, width), dtype),
            "c": wide(jnp.zeros((2, columns, num, width), dtype)),
            "x": jnp.zeros((2, num, 2 * width), dtype),
        }

    def step(params, cache, x, groups, place, cond=None):
        row, column, _ = place
        this, last = row % 2, (row + 1) % 2
        num, width = cache["c"].shape[2:]
        left = jnp.where(column > 0, cache["x"][(column + 1) % 2], 0)
        above = jax.lax.dynamic_slice(cache["h"], (last, column, 0, 0), (1, 3, num, width))[0]
        gates = jnp.concatenate([left, x], -1) @ input_kernel(params, groups) + _bias(params, cond)
        gates += above.swapaxes(0, 1).reshape(num, -1) @ params["state"]
        h, c = _lstm(gates, cache["c"][last, column])
        return h, {
            "h": _write(cache["h"], h, this, column + 1),
            "c": _write(cache["c"], c, this, column),
            "x": _write(cache["x"], x, column % 2),
        }

    return Recurrent(init, apply, start, step)


def _three_above(h):
    """What stands above, of [B, W, F], to the left, straight and to the right."""
    padded = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :-2], h, padded[:, 2:]], -1)


def diagonal_bilstm() -> Recurrent:
    """States from those on the left and above, plus the states from the right and above of the row before.

    All pixels before are seen but the last one of the row above, which no feature of that row sees (mask A), where the
    first layer's kernel does not reach it.

    Reference: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759, section 3.2.
    """

    def init(key, width, cond_dims):
        keys = dict(zip(("right", "left"), jax.random.split(key), strict=True))  # where a direction goes to
        return {name: _init_gates(key, 2 * width, 2 * width, width, cond_dims) for name, key in keys.items()}

    def apply(params, x, groups, cond=None):
        right, left = (_bias(params[name], cond)[:, None, None] for name in ("right", "left"))
        states = _diagonals(_inputs(params["right"], x, groups, right), params["right"]["state"])
        flipped = _diagonals(_inputs(params["left"], x[:, :, ::-1], groups, left), params["left"]["state"])
        return states + _down(flipped[:, :, ::-1])

    def start(num, columns, width, dtype):
        """Of the first direction two rows of h and two pixels of c; of the second one row; one row of the input."""
        return {
            "h": jnp.zeros((2, columns + 1, num, width), dtype),
            "c": wide(jnp.zeros((2, num, width), dtype)),
            "back": jnp.zeros((columns, num, width), dtype),
            "x": jnp.zeros((columns, num, 2 * width), dtype),
        }

    def step(params, cache, x, groups, place, cond=None):
        row, column, channel = place
        this, last = row % 2, (row + 1) % 2
        forth, bias = params["right"], _bias(params["right"], cond)
        back = _row_back(params["left"], cache, groups, (row > 0) & (column == 0) & (channel == 0), cond)
        before = jnp.concatenate([cache["h"][this, column], cache["h"][last, column + 1]], -1)
        c = jnp.where(column > 0, cache["c"][(column + 1) % 2], 0)
        h, c = _lstm(_inputs(forth, x, groups, bias) + before @ forth["state"], c)
        return h + back[column], {
            "h": _write(cache["h"], h, this, column + 1),
            "c": _write(cache["c"], c, column % 2),
            "back": back,
            "x": _write(cache["x"], x, column),
        }

    return Recurrent(init, apply, start, step)


def _inputs(params, x, groups, bias):
    """What the input gives to the gates, by a 1x1 convolution with mask B."""
    features, width = x.shape[-1], params["state"].shape[1] // 4
    return x @ (params["input"] * _gate_mask(features, width, groups)) + bias


def _row_back(params, cache, groups, needed, cond):
    """The second direction's states of the row before, once that row is complete: a loop of no turns until then.

    A loop and no `lax.cond`, whose branches would copy the states at every site.
    """
    bias, columns = _bias(params, cond), cache["x"].shape[0]

    def pixel(j, carry):
        back, h, c = carry
        at = columns - 1 - j
        gates = _inputs(params, cache["x"][at], groups, bias)
        h, c = _lstm(gates + jnp.concatenate([h, back[at]], -1) @ params["state"], c)
        return _write(back, h, at), h, c

    start = cache["back"], jnp.zeros_like(cache["back"][0]), jnp.zeros_like(cache["c"][0])
    return jax.lax.fori_loop(0, jnp.where(needed, columns, 0), pixel, start)[0]


def _diagonals(inputs, kernel):
    """States of a map from the left and from above, one diagonal of it after another.

    Before a row begins its states are zero, because its gates are: the bias is part of the inputs. What stands after a
    row's end, no pixel sees.
    """
    states = recurrence(_skew(inputs).transpose(2, 0, 1, 3), kernel, _left_and_above, matmul_precision())
    return _unskew(states.transpose(1, 2, 0, 3))


def _left_and_above(h):
    return jnp.concatenate([h, _down(h)], -1)


def _down(x):
    """Rows one place down, zeros first."""
    return jnp.pad(x, ((0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)))[:, :-1]


def _skew(x: Float[Array, "B H W F"]) -> Float[Array, "B H D F"]:
    """Row r moves r places to the right, so that diagonals become columns, D = W + H - 1 of them."""
    B, H, W, F = x.shape
    padded = jnp.pad(x, ((0, 0), (0, 0), (0, H), (0, 0))).reshape(B, H * (W + H), F)
    return padded[:, : H * (W + H - 1)].reshape(B, H, W + H - 1, F)


def _unskew(x: Float[Array, "B H D F"]) -> Float[Array, "B H W F"]:
    """Undoes `_skew`."""
    B, H, D, F = x.shape
    padded = jnp.pad(x.reshape(B, H * D, F), ((0, 0), (0, H), (0, 0)))
    return padded.reshape(B, H, D + 1, F)[:, :, : D + 1 - H]


LAYERS = {"row": row_lstm(), "diagonal": diagonal_bilstm()}
