"""The masked autoencoder of discrete sites: `networks.made` with values that enter one-hot, and direct connections.

Units are sorted by level, as there. Another order of the sites, or another deal of the levels among the hidden units,
is the same network with its parameters arranged anew (`arranged`): that is how several masks share one set of weights.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from genflow.core import CausalNetwork, Params
from genflow.networks.made import Layers, hidden_levels, mask, masked_product
from genflow.networks.precision import precise


@precise
def masked_perceptron(widths: tuple[int, ...], bins: int, direct: bool = True) -> Callable[[int], CausalNetwork]:
    """h_k = relu(b_k + (W_k * M_k) h_(k-1)), raw = b + (V * M_V) h + (A * M_A) x; a step computes what is new.

    Builder num_params -> CausalNetwork on sites [B, L, 1]. Value v > 0 enters as a one in place v of bins - 1, value 0
    as zeros: two bins as they are. The output starts at zero.

    Args:
      direct: the connections A from inputs to outputs.

    Reference: Germain et al. (2015), MADE: Masked autoencoder for distribution estimation, arXiv:1502.03509, equations
      4 to 11, and for A section 4.3; cond enters the first layer and the output.
    """

    def build(num_params):
        def layers_of(num_sites, cond):
            return _layers(widths, num_sites, bins - 1, num_params, direct, cond)

        def init(key, x, cond=None):
            layers = layers_of(x.shape[1], cond)
            *keys, key_cond = jax.random.split(key, len(layers) + 1)
            params = {name: _init_layer(k, name, *layers[name]) for k, name in zip(keys, layers, strict=True)}
            return params if cond is None else params | {"cond": _init_cond(key_cond, cond.shape[-1], params)}

        def apply(params, x, cond=None, key=None):
            layers, biases = layers_of(x.shape[1], cond), _biases(params, cond)
            seen = h = _one_hot(x[..., 0], bins, biases["output"].dtype)

            def product(name, h):
                return masked_product(h, params[name]["kernel"], *layers[name])

            for name in _hidden(layers):
                h = jax.nn.relu(product(name, h) + biases[name])
            raw = product("output", h) + biases["output"]
            raw = raw + product("direct", seen) if "direct" in layers else raw
            return raw.reshape(*x.shape[:2], num_params)

        def start(params, num, cond=None):
            bias = params["output"]["bias"]
            layers = layers_of(len(bias) // num_params, cond)
            return {name: jnp.zeros((num, len(layers[name][0])), bias.dtype) for name in [*_hidden(layers), "output"]}

        def step(params, cache, x, i, cond=None):
            last = jnp.maximum(i - 1, 0)  # at the first site this writes what no mask lets through yet
            value = _one_hot(jax.lax.dynamic_slice_in_dim(x[..., 0], last, 1, axis=1), bins, cache["output"].dtype)
            return _step(params, _biases(params, cond), cache, layers_of(x.shape[1], cond), value, last, i)

        return CausalNetwork(init, apply, start, step)

    return build


def _layers(widths, num_sites, num_inputs, num_params, direct, cond) -> Layers:
    """Ascending levels of each layer's inputs and outputs; units of level 0, which see cond alone, only with cond."""
    levels, layers = np.repeat(np.arange(num_sites) + 1, num_inputs), {}
    first, last = levels, np.repeat(np.arange(num_sites), num_params)
    for k, width in enumerate(widths):
        after = hidden_levels(width, num_sites, lowest=int(cond is None))
        layers[f"hidden_{k}"] = (levels, after)
        levels = after
    layers["output"] = (levels, last)
    return layers | {"direct": (first, last)} if direct and widths else layers


def _hidden(layers):
    return [name for name in layers if name.startswith("hidden")]


def _one_hot(values, bins, dtype):
    return jax.nn.one_hot(values - 1, bins - 1, dtype=dtype).reshape(values.shape[0], -1)


def _init_layer(key, name, levels_in, levels_out):
    """Zeros for the output; else variance 2 / fan_in, as ReLU wants it, with the fan-in that the mask leaves."""
    kernel = jnp.zeros((len(levels_in), len(levels_out)))
    if name == "direct":
        return {"kernel": kernel}
    if name != "output":
        fan_in = np.maximum(mask(levels_in, levels_out).sum(0), 1)
        kernel = jax.random.normal(key, kernel.shape) * np.sqrt(2 / fan_in).astype(kernel.dtype)
    return {"kernel": kernel, "bias": jnp.zeros(len(levels_out))}


def _init_cond(key, size, params):
    kernels = {"output": jnp.zeros((size, len(params["output"]["bias"])))}
    if "hidden_0" in params:
        kernels["hidden_0"] = jax.random.normal(key, (size, len(params["hidden_0"]["bias"]))) / np.sqrt(size)
    return kernels


def _biases(params, cond):
    """{layer: [B or 1, units]}."""
    biases = {name: layer["bias"][None] for name, layer in params.items() if "bias" in layer}
    if cond is None:
        return biases
    return biases | {name: biases[name] + cond.astype(a.dtype) @ a for name, a in params["cond"].items()}


def _step(params, biases, cache, layers, value, last, i):
    """Outputs of site i from `value` of the site before. The cache is what each layer has seen of its inputs.

    A layer computes its units of level i, and so many beyond that all steps have one shape: the masks hide those from
    all that is used before their own turn.
    """
    cache, names = dict(cache), [*_hidden(layers), "output"]
    cache[names[0]] = jax.lax.dynamic_update_slice(cache[names[0]], value, (0, last * value.shape[1]))
    for name, following in zip(names, names[1:], strict=False):
        h, origin = _units(params, cache[name], layers, name, i)
        h = jax.nn.relu(h + jax.lax.dynamic_slice_in_dim(biases[name], origin, h.shape[1], axis=1))
        cache[following] = jax.lax.dynamic_update_slice(cache[following], h, (0, origin))
    raw, origin = _units(params, cache["output"], layers, "output", i)
    raw += jax.lax.dynamic_slice_in_dim(biases["output"], origin, raw.shape[1], axis=1)
    return raw + _units(params, cache[names[0]], layers, "direct", i)[0] if "direct" in layers else raw, cache


def _units(params, h, layers, name, i):
    """(h @ (kernel * mask) at the units of level i, [B, as many as the largest level has], where they begin)."""
    levels_in, levels_out = layers[name]
    size = int(np.bincount(levels_out).max())
    first = np.searchsorted(levels_out, np.arange(levels_out[-1] + 2))
    origin = jnp.minimum(jnp.asarray(first)[i], len(levels_out) - size)
    kernel = jax.lax.dynamic_slice_in_dim(params[name]["kernel"], origin, size, axis=1)
    allowed = levels_in[:, None] <= jax.lax.dynamic_slice_in_dim(jnp.asarray(levels_out), origin, size)
    return h @ (kernel * allowed), origin


def arranged(params: Params, order: Int[Array, " L"] | None, deal: Sequence[Int[Array, " units"]]) -> Params:
    """Parameters of another mask of a `masked_perceptron` that draws the sites in another order, on the same weights.

    Args:
      order: order[i] is the site that is drawn i-th; None: as they are.
      deal: for each hidden layer, deal[k][j] is the unit that takes the j-th lowest level.
    """
    places = {f"hidden_{k}": units for k, units in enumerate(deal)}
    chain = ["input", *_hidden(params), "output"]
    if order is not None:
        places["input"] = _spread(order, params[chain[1]]["kernel"].shape[0])
        places["output"] = _spread(order, params["output"]["bias"].shape[0])

    def along(a, *names):
        """Arranges the last axes of an array by the places of these layers."""
        for axis, name in enumerate(names):
            a = _take(axis + a.ndim - len(names), a, places[name]) if name in places else a
        return a

    def layer(before, name):
        return {key: along(a, *(before, name)[-a.ndim :]) for key, a in params[name].items()}

    new = {name: layer(before, name) for before, name in zip(chain, chain[1:], strict=False)}
    if "direct" in params:
        new["direct"] = {"kernel": along(params["direct"]["kernel"], "input", "output")}
    if "cond" in params:
        new["cond"] = {name: along(a, name) for name, a in params["cond"].items()}
    return new


def _spread(order, size):
    """Indices of the values that belong to the sites of `order`, so many for each."""
    each = size // len(order)
    return (order[:, None] * each + jnp.arange(each)).reshape(-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _take(axis, a, permutation):
    return jnp.take(a, permutation, axis)


def _take_backward(axis, permutation, g):
    """The gradient as a gather, too: XLA knows a scatter only, one element after another."""
    return jnp.take(g, jnp.argsort(permutation), axis), None


_take.defvjp(lambda axis, a, permutation: (_take(axis, a, permutation), permutation), _take_backward)
