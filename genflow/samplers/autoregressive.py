"""Ancestral sampling of autoregressive models: four ways to the same draws.

x_i ~ p(x_i | x_1 .. x_(i-1)), i = 1 .. L. Site i has its own key, so that all methods give the same sites under the
same key; they differ in how often they evaluate what. `naive` is the definition, the others are checked against it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from genflow.core import CausalNetwork, Params


class Drawn(NamedTuple):
    """Sites, and how many evaluations of the network they took one after another."""

    sites: Int[Array, "B L C"]
    num_evaluations: Int[Array, ""]


def draw_sites(
    method: str,
    network: CausalNetwork,
    draw: Callable[[Array, Array], Array],
    params: Params,
    key: Array,
    x: Int[Array, "B L C"],
    known: Bool[Array, "B L"],
    cond: Array | None = None,
    num_sites: int | None = None,
) -> Drawn:
    """Draws the sites of x that are not known, in order, each given all before it.

    Args:
      method: 'naive', the whole network at every site; 'windowed', at every site those rows of sites that its output
        can see; 'cached', the network's step, which computes what is new; 'jacobi', all sites at once, again and again
        until nothing changes.
      draw: (key, raw [..., num_params]) -> [..., C] int32.
      num_sites: how many of the first sites are drawn, the rest staying as they are; None: all.

    Raises:
      ValueError: an unknown method, or 'windowed' for a network without a window.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    num_sites = x.shape[1] if num_sites is None else num_sites
    return METHODS[method](network, draw, params, key, x, known, cond, num_sites)


def _one_by_one(draw, key, x, known, num_sites, raw_at, memory) -> Drawn:
    """The loop over sites; raw_at(memory, x, i) -> (raw [B, num_params], memory)."""

    def body(i, carry):
        x, memory = carry
        raw, memory = raw_at(memory, x, i)
        new = draw(jax.random.fold_in(key, i), raw)
        new = jnp.where(known[:, i, None], x[:, i], new)
        return x.at[:, i].set(new), memory

    x, _ = jax.lax.fori_loop(0, num_sites, body, (x, memory))
    return Drawn(x, jnp.asarray(num_sites))


def _naive(network, draw, params, key, x, known, cond, num_sites):
    def raw_at(memory, x, i):
        return network.apply(params, x, cond)[:, i], memory

    return _one_by_one(draw, key, x, known, num_sites, raw_at, ())


def _windowed(network, draw, params, key, x, known, cond, num_sites):
    """Evaluates the rows that the output can see; rows above them would change nothing."""
    if network.window is None or (cond is not None and cond.ndim > 2):
        raise ValueError("method='windowed' needs outputs that see a bounded number of rows, and one condition for all")
    rows, size = network.window
    total = x.shape[1] // size
    seen = min(rows, total)

    def raw_at(memory, x, i):
        first = jnp.clip(i // size - seen + 1, 0, total - seen) * size
        slab = jax.lax.dynamic_slice_in_dim(x, first, seen * size, axis=1)
        return network.apply(params, slab, cond)[:, i - first], memory

    return _one_by_one(draw, key, x, known, num_sites, raw_at, ())


def _cached(network, draw, params, key, x, known, cond, num_sites):
    def raw_at(cache, x, i):
        return network.step(params, cache, x, i, cond)

    return _one_by_one(draw, key, x, known, num_sites, raw_at, network.start(params, x.shape[0], cond))


def _jacobi(network, draw, params, key, x, known, cond, num_sites):
    """Iterates x <- draw(keys, apply(x)); what does not change any more is what drawing one by one gives.

    After k rounds the first k sites are right, so that there are L + 1 rounds at most, and far fewer where sites depend
    little on many of those before them.

    Reference: Song et al. (2021), Accelerating feedforward computation via parallel nonlinear equation solving,
    arXiv:2002.03629, section 3.2; Wiggers and Hoogeboom (2020), Predictive sampling with forecasting autoregressive
    models, arXiv:2002.09928 (the noise held fixed).
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(x.shape[1]))
    known |= jnp.arange(x.shape[1]) >= num_sites

    def body(carry):
        x, _, rounds = carry
        raw = network.apply(params, x, cond)
        new = jax.vmap(draw, in_axes=(0, 1), out_axes=1)(keys, raw)
        new = jnp.where(known[..., None], x, new)
        return new, (new != x).any(), rounds + 1

    def changing(carry):
        return carry[1] & (carry[2] <= x.shape[1])

    x, _, rounds = jax.lax.while_loop(changing, body, (x, jnp.asarray(True), jnp.asarray(0)))
    return Drawn(x, rounds)


METHODS = {"naive": _naive, "windowed": _windowed, "cached": _cached, "jacobi": _jacobi}
