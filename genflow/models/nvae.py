"""NVAE: a hierarchy of many groups of latent maps, drawn from the coarsest scale to the finest.

The encoder goes up once and keeps what each group needs of it; the decoder comes down, and posterior and prior of a
group both see what it has come to. The groups of a scale have parameters of the same shapes: they are one scan.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from genflow.core import Model, Spec
from genflow.models.latent import Hierarchy, Objective, Walk, latent_variable
from genflow.models.nvae_towers import Sizes, decoder, encoder, gaussian
from genflow.models.observation import Observation, observation
from genflow.models.spectral import penalized, spectral_penalty
from genflow.networks.nvae import randomized


def nvae(
    spec: Spec,
    width: int = 32,
    groups: tuple[int, ...] = (5, 10),
    channels: int = 20,
    cells: int = 2,
    blocks: int = 2,
    block_cells: int = 3,
    flows: int = 0,
    likelihood: str = "auto",
    min_log_scale: float = -5.0,
    memory: str = "store",
    spectral: float = 1e-2,
    beta: float = 1.0,
    free_nats: float = 0.0,
    kl_warmup: int = 0,
    balance: bool = True,
) -> Model:
    """q(z_l | x, z_<l) = N(mean_p + mean, (std_p std)^2) beside p(z_l | z_<l) = N(mean_p, std_p^2), by residual cells.

    Images of any size: they are surrounded by the lowest value up to a multiple of 2^halvings, and the decoder's output
    is cut back before the likelihood sees it. With flows, the log-posterior and KL of a level drawn from its prior are
    those of posterior = prior: the density of q there would need the flow's inverse.

    Args:
      width: channels at the full resolution; twice as many after each halving.
      groups: of latents at each scale, from the coarsest (drawn first) to the finest.
      channels: of a group's map of latents.
      cells: of encoder and of decoder for each group.
      blocks: halvings before the finest scale, with block_cells cells each.
      flows: pairs of autoregressive shifts, in raster order and mirrored, in each posterior; its KL is then that of
        the draw.
      likelihood, min_log_scale: see `observation`.
      memory: 'remat' keeps for the backward pass what enters each group, and each cell outside the groups.
      spectral: weight of the sum of largest singular values, see `spectral_penalty`; 0: off.
      beta, free_nats, kl_warmup, balance: see `Objective`; balance acts during the warm-up alone, and not without one.

    Raises:
      ValueError: data that are no images, sizes below one, or an unknown memory.

    Reference: Vahdat and Kautz (2020), NVAE: A deep hierarchical variational autoencoder, arXiv:2007.03898.
    """
    sizes = Sizes(width, tuple(groups), channels, cells, blocks, block_cells, flows, memory)
    check(spec, sizes)
    if spectral < 0:
        raise ValueError(f"spectral={spectral} must not be negative; 0 turns it off")
    seen = observation(spec, likelihood, min_log_scale)
    objective = Objective(beta, free_nats, kl_warmup, balance=balance and kl_warmup > 0)
    model = latent_variable(spec, hierarchy(spec, seen, sizes), seen, objective)
    return penalized(model, spectral_penalty(spectral)) if spectral else model


def check(spec: Spec, sizes: Sizes) -> None:
    """Raises ValueError for what cannot be built."""
    if spec.kind != "images":
        raise ValueError(f"nvae models images; {spec.name} has events of shape {spec.shape}; take vae")
    if not sizes.groups or min(sizes.groups) < 1:
        raise ValueError(f"groups={sizes.groups} must name at least one scale, with at least one group each")
    if min(sizes.width, sizes.channels, sizes.cells, sizes.block_cells) < 1 or min(sizes.blocks, sizes.flows) < 0:
        raise ValueError(
            "width, channels, cells and block_cells must be above zero, blocks and flows not below; "
            f"they are {(*sizes[:1], *sizes[2:-1])}"
        )
    if sizes.memory not in ("store", "remat"):
        raise ValueError(f"memory={sizes.memory!r}: expected one of store, remat")


def hierarchy(spec: Spec, seen: Observation, sizes: Sizes) -> Hierarchy:
    """Encoder and decoder; the levels are the groups of latents, the topmost first."""
    up, down = encoder(sizes), decoder(sizes, math.prod(seen.shape[2:]))
    num_levels = sum(sizes.groups)
    margins = margins_of(spec.shape, 2**sizes.halvings)

    def padded(x):
        return jnp.pad(x, ((0, 0), *margins, (0, 0)), constant_values=-1)

    def init(key, x):
        coarsest = padded(x)[:, :: 2**sizes.halvings, :: 2**sizes.halvings]
        return randomized(key, {"up": up.init(key, padded(x)), "down": down.init(key, sizes.features(coarsest, 0))})

    def descended(params, num, visitor, given):
        h, told = down.apply(params["down"], num, visitor, given)
        (top, _), (left, _) = margins
        h = h[:, top : top + spec.shape[0], left : left + spec.shape[1]]
        return h.reshape(num, *seen.shape), told

    def infer(params, key, e, from_posterior, temperature):
        arrays = (jax.random.split(key, num_levels), from_posterior, temperature)
        given = list(zip(groups_first(e), *(staged(a, sizes) for a in arrays), strict=True))
        h, told = descended(params, len(e[0]), lambda g, p, s, raw, given: g.draw(p, s, raw, *given), given)
        return Walk(batch_first([t.z for t in told]), h, *(levels(told, i) for i in (1, 2, 3)))

    def joint(params, z):
        def score(group, p, s, raw, z):
            return z, gaussian(raw).log_prob(z)

        h, told = descended(params, len(z[0]), score, groups_first(z))
        return h, levels(told, 1)

    def generate(params, key, num, temperature):
        given = list(zip(*(staged(a, sizes) for a in (jax.random.split(key, num_levels), temperature)), strict=True))
        h, told = descended(params, num, lambda g, p, s, raw, given: (gaussian(raw).draw(*given),), given)
        return batch_first([t[0] for t in told]), h

    def evidence(params, x):
        return up.apply(params["up"], padded(x))

    return Hierarchy(num_levels, init, evidence, infer, joint, generate, shares=shares_of(sizes))


def margins_of(shape: tuple[int, ...], multiple: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many rows above and below, columns left and right bring an image to a multiple.

    >>> margins_of((28, 30, 1), 8)
    ((2, 2), (1, 1))
    """
    missing = [-side % multiple for side in shape[:2]]
    return tuple((n // 2, n - n // 2) for n in missing)


def shares_of(sizes: Sizes) -> tuple[float, ...]:
    """Of each group's KL: the pixels of its scale over the groups of its scale, relative to the coarsest.

    Reference: the official code of NVAE, whose balancing coefficients divide by this.
    """
    return tuple(4**i / n for i, n in enumerate(sizes.groups) for _ in range(n))


def staged(a: Array, sizes: Sizes) -> list[Array]:
    """[L, ...] as the topmost value, and those of each scan."""
    ends = [1 + sum(sizes.stages[: i + 1]) for i in range(len(sizes.stages))]
    return [a[0], *(a[end - n : end] for n, end in zip(sizes.stages, ends, strict=True) if n)]


def groups_first(trees: tuple[Array, ...]) -> list[Array]:
    """[B, ...] of the topmost as it is, [B, n, ...] of the scans as [n, B, ...]."""
    return [trees[0], *(a.swapaxes(0, 1) for a in trees[1:])]


def batch_first(told: list[Array]) -> tuple[Array, ...]:
    """Undoes `groups_first`."""
    return tuple(groups_first(tuple(told)))


def levels(told: PyTree, term: int) -> Array:
    """One term of what the groups told, [L, B]."""
    return jnp.concatenate([told[0][term][None], *(t[term] for t in told[1:])])
