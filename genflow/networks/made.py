"""Masked autoencoders: one network whose output for dimension d sees the dimensions before d (and cond) only.

Every unit has a level: input k the level k + 1, a hidden unit the number of inputs that it may see, the outputs for
dimension d the level d. One rule makes all masks: a connection exists where level_in <= level_out. Units are sorted by
level, so that a mask is a staircase and the products skip the blocks of zeros above it.

The same body of a network runs in two ways. `apply` evaluates it for all dimensions at once. `generate` walks through
the dimensions and, in each layer, computes the few units whose level has just become complete: all steps together cost
one evaluation, where D evaluations are usual.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PyTree

from genflow.core import Params
from genflow.networks.precision import matmul_precision, precise, wide_products

BLOCKS, BLOCK = 4, 128  # a masked product has at most so many blocks a side, of at least so many units

Levels = Int[np.ndarray, " units"]
Layers = dict[str, tuple[Levels, Levels]]  # name -> levels of a layer's inputs and outputs


class MaskedNetwork(NamedTuple):
    """An autoregressive network.

    init(key, x, cond=None) -> params
    apply(params, x, cond=None) -> raw [B, D, num_params], where raw[:, d] depends on x[:, :d] and cond
    generate(params, draw, state, like, cond=None) -> (x, state): x [B, D] with the dtype of `like`, made one dimension
        at a time by draw(d, raw [B, num_params], state) -> (x_d [B], state)
    """

    init: Callable[..., Params]
    apply: Callable[..., Float[Array, "B D num_params"]]
    generate: Callable[..., tuple[Float[Array, "B D"], PyTree]]


def hidden_levels(num_units: int, num_dims: int, lowest: int) -> Levels:
    """Levels lowest .. num_dims - 1, spread evenly over the units in ascending order; the highest always occurs.

    >>> hidden_levels(6, 4, 1).tolist()
    [1, 1, 2, 2, 3, 3]
    """
    lowest = min(lowest, num_dims - 1)
    return num_dims - 1 - (np.arange(num_units)[::-1] * (num_dims - lowest)) // num_units


def mask(levels_in: Levels, levels_out: Levels) -> Bool[np.ndarray, "inputs outputs"]:
    """Where connections exist. Germain et al. (2015), MADE, arXiv:1502.03509, equations 8 and 9."""
    return levels_in[:, None] <= levels_out


@precise
def made(widths: tuple[int, ...], activation: Callable = jax.nn.relu) -> Callable[[int], MaskedNetwork]:
    """Builder of masked perceptrons: num_params -> MaskedNetwork. The last layer starts at zero.

    Reference: Germain et al. (2015), MADE: Masked autoencoder for distribution estimation, arXiv:1502.03509.
    """
    names = [f"hidden_{i}" for i in range(len(widths))]

    def body(linear, dropped, x):
        for name in names:
            x = activation(linear(name, x))
        return linear("output", x)

    return _builder(dict(zip(names, widths, strict=True)), body)


@precise
def residual_made(width: int, num_blocks: int, dropout: float = 0.0) -> Callable[[int], MaskedNetwork]:
    """Builder of masked networks of blocks h + linear(dropped(relu(linear(relu(h))))), each of which starts at zero.

    Args:
      dropout: fraction of a block's units that `apply` drops where a key is given.

    Reference: Nash and Durkan (2019), Autoregressive energy machines, arXiv:1904.05626, section 3.2 (ResMADE).
    """
    names = [(f"block_{i}_in", f"block_{i}_out") for i in range(num_blocks)]

    def body(linear, dropped, x):
        h = linear("input", x)
        for first, last in names:
            h = h + linear(last, dropped(last, jax.nn.relu(linear(first, jax.nn.relu(h)))))
        return linear("output", jax.nn.relu(h))

    widths = dict.fromkeys(["input", *(name for pair in names for name in pair)], width)
    return _builder(widths, body, [last for _, last in names], dropout)


def _builder(widths: dict[str, int], body: Callable, zero: Sequence[str] = (), dropout: float = 0.0):
    """Networks of a body(linear, dropped, x), which calls linear(name, h) in the order of `widths`, then for 'output'.

    Args:
      zero: layers that start at zero, like the output.
    """

    def build(num_params):
        def init(key, x, cond=None):
            layers = _layers(widths, x.shape[-1], num_params, cond)
            keys = jax.random.split(key, len(layers) + 1)
            params = {
                name: _init_layer(key_i, *levels, name in (*zero, "output"), x.dtype)
                for key_i, (name, levels) in zip(keys, layers.items(), strict=False)
            }
            return params if cond is None else params | {"cond": _init_cond(keys[-1], cond, layers, x.dtype)}

        def apply(params, x, cond=None, key=None):
            layers = _layers(widths, x.shape[-1], num_params, cond)
            biases = _biases(params, layers, cond)

            def linear(name, h):
                return masked_product(h, params[name]["kernel"], *layers[name]) + biases[name]

            def dropped(name, h):
                if key is None or dropout == 0:
                    return h
                return _dropped(jax.random.fold_in(key, list(layers).index(name)), h, dropout)

            raw = checkpoint_name(body(linear, dropped, x), "conditioner")
            return raw.reshape(*x.shape, num_params)

        def generate(params, draw, state, like, cond=None):
            layers = _layers(widths, like.shape[-1], num_params, cond)
            return _generate(params, body, layers, _biases(params, layers, cond), draw, state, like)

        return MaskedNetwork(init, apply, generate)

    return build


def _dropped(key, h, rate):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, h.shape), h / (1 - rate), 0)


def _layers(widths: dict[str, int], num_dims: int, num_params: int, cond) -> Layers:
    """Units of level 0 see cond alone; without cond there are none."""
    levels, layers = np.arange(num_dims) + 1, {}
    for name, width in widths.items():
        after = hidden_levels(width, num_dims, lowest=int(cond is None))
        layers[name] = (levels, after)
        levels = after
    return layers | {"output": (levels, np.repeat(np.arange(num_dims), num_params))}


def _init_layer(key, levels_in, levels_out, zero, dtype):
    """N(0, 1 / (fan_in + 1)) as Papamakarios et al. (2017), arXiv:1705.07057, with the fan-in that the mask leaves."""
    fan_in = mask(levels_in, levels_out).sum(0)
    kernel = jax.random.normal(key, (len(levels_in), len(levels_out)), dtype)
    scale = jnp.asarray(0.0 if zero else 1 / np.sqrt(fan_in + 1), dtype)
    return {"kernel": scale * kernel, "bias": jnp.zeros(len(levels_out), dtype)}


def _init_cond(key, cond, layers, dtype):
    size, first, output = cond.shape[-1], len(next(iter(layers.values()))[1]), len(layers["output"][1])
    hidden = jax.random.normal(key, (size, first), dtype) / np.sqrt(size + 1).astype(dtype)
    return {"hidden": hidden, "output": jnp.zeros((size, output), dtype)}


def _biases(params, layers, cond):
    """Biases [B or 1, units]. cond enters every unit of the first layer, and every output: the first see few units."""
    biases = {name: params[name]["bias"][None] for name in layers}
    if cond is None:
        return biases
    kernels = {next(iter(layers)): params["cond"]["hidden"], "output": params["cond"]["output"]}
    return biases | {name: biases[name] + cond.astype(kernel.dtype) @ kernel for name, kernel in kernels.items()}


def masked_product(
    h: Float[Array, "B inputs"], kernel: Float[Array, "inputs outputs"], levels_in: Levels, levels_out: Levels
) -> Float[Array, "B outputs"]:
    """h @ (kernel * mask) by blocks, each with only those inputs that some of its outputs can see.

    Its gradients are cut in the same way. The price: reverse mode only, to any order, no `jax.jvp`.
    """
    allowed = mask(levels_in, levels_out)
    blocks = [_cuts(size, int(np.clip(min(allowed.shape) // BLOCK, 1, BLOCKS))) for size in allowed.shape]
    rows = [(a, b, np.searchsorted(levels_out, levels_in[a])) for a, b in blocks[0]]
    columns = [(a, b, np.searchsorted(levels_in, levels_out[b - 1], "right")) for a, b in blocks[1]]

    precision = matmul_precision()

    @jax.custom_vjp
    def product(h, kernel):
        kernel = kernel * allowed
        with jax.default_matmul_precision(precision):
            return jnp.concatenate([h[:, :stop] @ kernel[:stop, a:b] for a, b, stop in columns], axis=1)

    def backward(saved, g):
        h, kernel = saved[0], saved[1] * allowed
        with jax.default_matmul_precision(precision):
            grad_h = [g[:, start:] @ kernel[a:b, start:].T for a, b, start in rows]
            grad_kernel = [
                jnp.pad(wide_products(_outer)(h[:, a:b], g[:, start:]), ((0, 0), (start, 0))) for a, b, start in rows
            ]
        return jnp.concatenate(grad_h, axis=1), jnp.concatenate(grad_kernel, axis=0) * allowed

    product.defvjp(lambda h, kernel: (product(h, kernel), (h, kernel)), backward)
    return product(h, kernel)


def _cuts(num_units: int, num_blocks: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, num_units, num_blocks + 1).astype(int)
    return list(zip(edges[:-1], edges[1:], strict=True))


def _outer(h, g):
    """h.T @ g; on CPU a narrow product of a transposed left side takes twice as long as transposing first."""
    return (jax.lax.optimization_barrier(h.T) if g.shape[1] < BLOCK <= h.shape[1] else h.T) @ g


def _generate(params, body, layers, biases, draw, state, like):
    """One loop over the dimensions; in step d each layer computes its units of level d from the inputs before d.

    A step computes as many units as the largest level has. Those that belong to the next level come too early: the
    masks hide them from all that is used before they are computed again.
    """
    (num, num_dims), first = like.shape, next(iter(layers))
    kernels = {name: (params[name]["kernel"] * mask(*levels)).T for name, levels in layers.items()}
    columns = {name: bias.T for name, bias in biases.items()}
    sizes = {name: int(np.bincount(levels).max()) for name, (_, levels) in layers.items()}
    starts = {name: jnp.asarray(np.searchsorted(levels, np.arange(num_dims))) for name, (_, levels) in layers.items()}

    def step(d, carry):
        seen, state = dict(carry[0]), carry[1]  # what each layer has seen of its inputs, [units, B]
        origin = None

        def linear(name, h):
            nonlocal origin
            if origin is not None:
                seen[name] = jax.lax.dynamic_update_slice_in_dim(seen[name], h, origin, 0)
            origin = jnp.minimum(starts[name][d], len(layers[name][1]) - sizes[name])
            kernel = jax.lax.dynamic_slice_in_dim(kernels[name], origin, sizes[name])
            bias = jax.lax.dynamic_slice_in_dim(columns[name], origin, sizes[name])
            return kernel @ seen[name].astype(kernel.dtype) + bias

        raw = body(linear, lambda name, h: h, None)
        x_d, state = draw(d, raw.T, state)
        seen[first] = jax.lax.dynamic_update_slice_in_dim(seen[first], x_d[None].astype(like.dtype), d, 0)
        return seen, state

    dtypes = {name: kernel.dtype for name, kernel in kernels.items()} | {first: like.dtype}  # x itself is not rounded
    seen = {name: jnp.zeros((len(levels), num), dtypes[name]) for name, (levels, _) in layers.items()}
    seen, state = jax.lax.fori_loop(0, num_dims, step, (seen, state))
    return seen[first].T, state
