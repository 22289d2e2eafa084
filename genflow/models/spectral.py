"""The largest singular value of every kernel, by power iteration: added to a loss, or divided by."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from genflow.core import Model, Params

ITERATIONS = 4  # a step; ten times as many at the start


class Normalization(NamedTuple):
    """A map of parameters to those that a network is applied with.

    init(key, params) -> state
    apply(params, state) -> (params, state): differentiable in params, the state has no gradient
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[Params, PyTree]]


def spectral_normalization(iterations: int = 1, largest: float = 1.0) -> Normalization:
    """Divides every kernel by its largest singular value / `largest`, found by power iteration from step to step.

    A kernel is a leaf `kernel`, of a dense layer [I, O] or a convolution [kh, kw, I, O], or an `embedding` [N, O]; it
    is taken as a matrix of O columns. The right singular vectors are the state; the gradient sees the singular vectors
    as constants.

    Args:
      iterations: a call; twenty times as many at the start.

    Reference: Miyato et al. (2018), Spectral normalization for generative adversarial networks, arXiv:1802.05957,
      algorithm 1 and equation 8.
    """

    def kernels(params):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return {leaf_path(path): leaf for path, leaf in leaves if path[-1].key in ("kernel", "embedding")}

    def matrices(params):
        return {name: a.reshape(1, -1, a.shape[-1]) for name, a in kernels(params).items()}

    def init(key, params):
        found = matrices(params)
        keys = jax.random.split(key, max(len(found), 1))
        noise = {name: jax.random.normal(k, (1, m.shape[2])) for k, (name, m) in zip(keys, found.items(), strict=False)}
        return power_iteration(found, noise, 20 * iterations)[0]

    def apply(params, vectors):
        found = matrices(params)
        right, left = power_iteration(jax.lax.stop_gradient(found), vectors, iterations)
        sigma = {name: jnp.einsum("nr,nrc,nc->", left[name], m, right[name]) for name, m in found.items()}

        def divided(path, leaf):
            name = leaf_path(path)
            return leaf * (largest / sigma[name]) if name in sigma else leaf

        return jax.tree_util.tree_map_with_path(divided, params), right

    return Normalization(init, apply)


def leaf_path(path) -> str:
    """'block_0/conv/kernel' for the path of a leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


class Penalty(NamedTuple):
    """A term of the loss that sees parameters alone.

    init(key, params) -> state
    apply(params, state) -> (value, state): the state has no gradient
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[Float[Array, ""], PyTree]]


def penalized(model: Model, penalty: Penalty) -> Model:
    """The model with a penalty on its parameter group 'model' in the loss, and among the metrics."""

    def init(key, batch):
        params, state = model.init(key, batch)
        return params, state | {"penalty": penalty.init(jax.random.fold_in(key, 1), params["model"])}

    def loss(params, state, key, batch):
        value, (state, metrics) = model.losses["model"](params, state, key, batch)
        extra, kept = penalty.apply(params["model"], state["penalty"])
        return value + extra, (state | {"penalty": kept}, metrics | {"penalty": extra})

    return model._replace(init=init, losses=model.losses | {"model": loss})


def spectral_penalty(weight: float) -> Penalty:
    """weight * (sum of the kernels' largest singular values + sum of the normalizations' largest |scale|).

    Counts every leaf `kernel` [..., kh, kw, I, O] of the parameters as matrices [kh kw I, O], times a `mask` beside it,
    and every leaf `scale` [..., C]. The right singular vectors are the state.

    Reference: Vahdat and Kautz (2020), NVAE, arXiv:2007.03898, section 3.2; 4 iterations a step, 40 at first, and the
    scales as in the official code.
    """

    def init(key, params):
        matrices = _matrices(params)
        noise = jax.random.uniform(key, (sum(len(m) * m.shape[2] for m in matrices.values()),), minval=-1.0)
        vectors, start = {}, 0
        for shape, m in matrices.items():
            vectors[shape] = noise[start : start + len(m) * m.shape[2]].reshape(len(m), -1)
            start += vectors[shape].size
        return power_iteration(matrices, vectors, 10 * ITERATIONS)[0]

    def apply(params, vectors):
        matrices = _matrices(params)
        right, left = power_iteration(jax.lax.stop_gradient(matrices), vectors, ITERATIONS)
        total = _largest_scales(params)
        for shape, m in matrices.items():
            total += jnp.einsum("nr,nrc,nc->", left[shape], m, right[shape])
        return weight * total, right

    return Penalty(init, apply)


def power_iteration(
    matrices: dict[str, Float[Array, "N R C"]], vectors: dict[str, Float[Array, "N C"]], iterations: int
) -> tuple[dict[str, Float[Array, "N C"]], dict[str, Float[Array, "N R"]]]:
    """(right, left) after some iterations: left^T M right tends to the largest singular value of each matrix."""

    def once(i, pair):
        left = {name: _unit(jnp.einsum("nrc,nc->nr", m, pair[0][name])) for name, m in matrices.items()}
        return {name: _unit(jnp.einsum("nrc,nr->nc", m, left[name])) for name, m in matrices.items()}, left

    start = {name: jnp.zeros(m.shape[:2], m.dtype) for name, m in matrices.items()}
    return jax.lax.fori_loop(0, iterations, once, (vectors, start))


def _unit(a):
    return a * jax.lax.rsqrt(jnp.square(a).sum(-1, keepdims=True) + 1e-12)


def _matrices(params: Params) -> dict[str, Float[Array, "N R C"]]:
    """Kernels as matrices, those of one shape together."""
    found = {}
    for layer in _layers(params, "kernel"):
        kernel = layer["kernel"] * layer["mask"] if "mask" in layer else layer["kernel"]
        matrices = kernel.reshape(-1, kernel.shape[-4] * kernel.shape[-3] * kernel.shape[-2], kernel.shape[-1])
        found.setdefault("x".join(map(str, matrices.shape[1:])), []).append(matrices)
    return {shape: jnp.concatenate(found[shape]) for shape in sorted(found)}


def _largest_scales(params: Params) -> Float[Array, ""]:
    scales = [jnp.abs(layer["scale"]).max(-1).sum() for layer in _layers(params, "scale")]
    return functools.reduce(jnp.add, scales, jnp.zeros(()))


def _layers(tree: PyTree, name: str) -> list[dict]:
    if not isinstance(tree, dict):
        return [layer for branch in tree for layer in _layers(branch, name)] if isinstance(tree, tuple | list) else []
    here = [tree] if name in tree and not isinstance(tree[name], dict) else []
    return here + [layer for key in sorted(tree) for layer in _layers(tree[key], name)]
