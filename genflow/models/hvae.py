"""Convolutional hierarchical VAEs with skip connections: q upwards from the data, or downwards beside p."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Params, Spec
from genflow.distributions import soft_clip
from genflow.models.latent import Drawn, Gaussian, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.observation import Observation, observation
from genflow.networks import hvae_head, hvae_stage, to_channels, to_pixels

INFERENCES = ("bottom_up", "bidirectional")


def hvae(
    spec: Spec,
    width: int = 64,
    kernels: tuple[int, ...] = (5, 3, 3),
    strides: tuple[int, ...] = (2, 2, 1),
    latents: tuple[int, ...] = (8, 16, 8),
    num_dense: int = 2,
    blocks: int = 3,
    patch: int = 1,
    inference: str = "bottom_up",
    activation: str = "relu",
    likelihood: str = "auto",
    min_log_scale: float = -5.0,
    beta: float = 1.0,
    free_nats: float = 0.0,
    free_nats_until: int = 0,
    kl_warmup: int = 0,
    samples: int = 1,
    gradient: str = "reparameterized",
) -> Model:
    """p(x, z) = p(x | z_1 .. z_L) prod_l p(z_l | z_(l+1) .. z_L), each density a residual stage after the other.

    Stages and latents are listed from the data upwards; what a stage computes skips its latent on the way up and down.

    Args:
      kernels, strides: of each stage's convolutions, and how much smaller its last block makes the map.
      latents: channels of each latent; the uppermost `num_dense` are vectors of that size, the others maps.
      blocks: residual blocks of a stage.
      patch: so many pixels a side are brought into channels before the first stage, and back after the last: cheaper.
      inference: 'bottom_up', q(z | x) = q(z_1 | x) prod_l q(z_(l+1) | z_l, x), or 'bidirectional', prod_l
        q(z_l | x, z_(l+1) .. z_L) with the stages of p.
      likelihood, min_log_scale: see `observation`.
      beta, free_nats, free_nats_until, kl_warmup, samples, gradient: see `Objective`.

    Raises:
      ValueError: sizes that do not fit each other or the data, and terms of the objective that exclude each other.

    Reference: Havtorn et al. (2021), Hierarchical VAEs know what they don't know, arXiv:2102.08248, and the official
    code; bidirectional as Sønderby et al. (2016), Ladder variational autoencoders, arXiv:1602.02282.
    """
    sizes = Sizes(spec, width, kernels, strides, latents, num_dense, blocks, patch)
    check(sizes, inference)
    seen = observation(spec, likelihood, min_log_scale)
    hierarchy = (bottom_up if inference == "bottom_up" else bidirectional)(networks(sizes, seen, activation))
    terms = Objective(beta, free_nats, kl_warmup, samples, gradient, free_nats_until)
    return latent_variable(spec, hierarchy, seen, terms)


class Sizes(NamedTuple):
    """Arguments of `hvae`, by their names."""

    spec: Spec
    width: int
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    latents: tuple[int, ...]
    num_dense: int
    blocks: int
    patch: int

    def maps(self) -> list[tuple[int, int]]:
        """Height and width of the first stage's input, and of each stage's output."""
        factors = [math.prod((self.patch, *self.strides[:i])) for i in range(len(self.strides) + 1)]
        return [(self.spec.shape[0] // f, self.spec.shape[1] // f) for f in factors]


def check(sizes: Sizes, inference: str) -> None:
    """Raises ValueError for sizes that do not fit each other or the data."""
    if inference not in INFERENCES:
        raise ValueError(f"inference={inference!r}: expected one of {', '.join(INFERENCES)}")
    if sizes.spec.kind != "images":
        raise ValueError(f"hvae models images [H, W, C]; {sizes.spec.name} is {sizes.spec.kind}: take vae")
    if not len(sizes.kernels) == len(sizes.strides) == len(sizes.latents) > 0:
        raise ValueError("kernels, strides and latents must have one value for each stage, and there must be one")
    positive = (sizes.width, sizes.blocks, sizes.patch, *sizes.kernels, *sizes.strides, *sizes.latents)
    if min(positive) < 1 or any(kernel % 2 == 0 for kernel in sizes.kernels):
        raise ValueError("width, blocks, patch, kernels, strides and latents must be above zero, and kernels odd")
    if not 0 <= sizes.num_dense <= len(sizes.latents):
        raise ValueError(f"num_dense={sizes.num_dense} must be 0 .. {len(sizes.latents)}, the number of latents")
    factor = math.prod((sizes.patch, *sizes.strides))
    if sizes.spec.shape[0] % factor or sizes.spec.shape[1] % factor:
        fault = f"patch and strides divide the sides by {factor}, {sizes.spec.shape} does not allow it"
        raise ValueError(f"{fault}; change them, or data.image_size")


class Networks(NamedTuple):
    """A hierarchy's parts, from the data upwards, and the shapes of its latents."""

    up: tuple[Network, ...]
    posterior: tuple[Network, ...]
    down: tuple[Network, ...]
    prior: tuple[Network, ...]  # of all latents but the uppermost
    out: Network
    shapes: tuple[tuple[int, ...], ...]
    enter: Callable  # data to the first stage's input
    leave: Callable  # what `out` says to the observation's h


def networks(sizes: Sizes, seen: Observation, activation: str) -> Networks:
    """Builds the parts."""
    maps, count = sizes.maps(), len(sizes.latents)
    heads = [0 if i >= count - sizes.num_dense else 3 for i in range(count)]

    def stage(i, size, is_up):
        return hvae_stage(size, sizes.width, sizes.kernels[i], sizes.strides[i], sizes.blocks, activation, is_up)

    gaussians = tuple(hvae_head(2 * n, kernel, activation) for n, kernel in zip(sizes.latents, heads, strict=True))
    pixels = sizes.patch**2 * math.prod(seen.shape[2:])
    return Networks(
        up=tuple(stage(i, maps[i], False) for i in range(count)),
        posterior=gaussians,
        down=tuple(stage(i, maps[i + 1], True) for i in range(count)),
        prior=gaussians[:-1],
        out=hvae_head(pixels, 3, activation),
        shapes=tuple((*(maps[i + 1] if heads[i] else ()), sizes.latents[i]) for i in range(count)),
        enter=lambda x: to_channels(x, sizes.patch),
        leave=lambda y: to_pixels(y, sizes.patch).reshape(-1, *seen.shape),
    )


def gaussian(raw) -> Gaussian:
    """Mean and log-standard deviation from the two halves of the last axis."""
    mean, log_std = jnp.split(raw, 2, -1)
    return Gaussian(mean, soft_clip(log_std))


def descend(nets: Networks, params: Params, num: int, draw: Callable):
    """The generative pass, latents drawn by draw(level, prior, d) with d what p says before: (h, one Drawn a level).

    Levels are numbered as in `Hierarchy`, from the uppermost.
    """
    d, levels = None, []
    for level, i in enumerate(reversed(range(len(nets.down)))):
        zeros = jnp.zeros((num, *nets.shapes[i]))
        prior = gaussian(nets.prior[i].apply(params["prior"][f"{i}"], d)) if level else Gaussian(zeros, zeros)
        levels.append(draw(level, prior, d))
        d = nets.down[i].apply(params["down"][f"{i}"], levels[-1].z, d)
    return nets.leave(nets.out.apply(params["out"], d)), levels


def ascend(nets: Networks, params: Params, h, draw: Callable):
    """The posteriors of bottom-up inference, uppermost first, from the first stage's output and z = draw(level, q)."""
    posteriors, z = [], None
    for i in range(len(nets.up)):
        h = nets.up[i].apply(params["up"][f"{i}"], z, h) if i else h
        posteriors.append(gaussian(nets.posterior[i].apply(params["posterior"][f"{i}"], h)))
        z = draw(len(nets.up) - 1 - i, posteriors[-1])
    return posteriors[::-1]


def walk(h, levels: list[Drawn]) -> Walk:
    """What `descend` returned, stacked."""
    z, *terms = zip(*levels, strict=True)
    return Walk(z, h, *(jnp.stack(term) for term in terms))


def _initialize(nets: Networks, key, x, posterior_sees_p: bool) -> Params:
    """Parameters, from the shapes that each part meets."""
    keys = iter(jax.random.split(key, 4 * len(nets.up)))
    params = {"inference": {"up": {}, "posterior": {}}, "generation": {"down": {}, "prior": {}}}
    q, p, maps = params["inference"], params["generation"], []
    h, skip = nets.enter(x), None
    zeros = [jnp.zeros((x.shape[0], *shape), x.dtype) for shape in nets.shapes]
    for i, stage in enumerate(nets.up):
        q["up"][f"{i}"] = stage.init(next(keys), h, skip)
        maps.append(stage.apply(q["up"][f"{i}"], h, skip))
        h, skip = (maps[-1], None) if posterior_sees_p else (zeros[i], maps[-1])
    d = None
    for i in reversed(range(len(nets.down))):
        if d is not None:
            p["prior"][f"{i}"] = nets.prior[i].init(next(keys), d)
        q["posterior"][f"{i}"] = nets.posterior[i].init(next(keys), maps[i], d if posterior_sees_p else None)
        p["down"][f"{i}"] = nets.down[i].init(next(keys), zeros[i], d)
        d = nets.down[i].apply(p["down"][f"{i}"], zeros[i], d)
    return params | {"generation": p | {"out": nets.out.init(next(keys), d)}}


def _generative(nets: Networks):
    """`joint` and `generate` of a hierarchy."""

    def joint(params, z):
        def given(level, prior, d):
            log_prior = prior.log_prob(z[level])
            return Drawn(z[level], log_prior, log_prior, log_prior)

        w = walk(*descend(nets, params["generation"], len(z[0]), given))
        return w.h, w.log_prior

    def generate(params, key, num, temperature):
        keys = jax.random.split(key, len(nets.down))

        def drawn(level, prior, d):
            return Drawn(prior.draw(keys[level], temperature[level]), *jnp.zeros((3, num)))

        w = walk(*descend(nets, params["generation"], num, drawn))
        return w.z, w.h

    return joint, generate


def bottom_up(nets: Networks) -> Hierarchy:
    """q draws upwards, p is given its draws: a latent's posterior has seen the one below, its prior the one above.

    So the KL of a level is log q - log p of what was drawn; there is no closed form given the levels above. Where p
    draws a level, q passes its mode upwards, whatever the temperature.
    """

    def evidence(params, x):
        return nets.up[0].apply(params["inference"]["up"]["0"], nets.enter(x))

    def infer(params, key, e, from_posterior, temperature):
        keys, up = jax.random.split(key, len(nets.up)), {}

        def drawn(level, q):
            # q's draw of a level that p draws is not part of z: what is inferred from it is to be that of x
            up[level] = q.draw(keys[level], jnp.where(from_posterior[level], temperature[level], 0.0))
            return up[level]

        q = ascend(nets, params["inference"], e, drawn)

        def chosen(level, prior, d):
            z = jnp.where(from_posterior[level], up[level], prior.draw(keys[level], temperature[level]))
            log_prior, log_posterior = prior.log_prob(z), q[level].log_prob(z)
            return Drawn(z, log_prior, log_posterior, log_posterior - log_prior)

        return walk(*descend(nets, params["generation"], len(e), chosen))

    def log_posterior(params, e, z):
        q = ascend(nets, params["inference"], e, lambda level, q: z[level])
        return jnp.stack([q[level].log_prob(z[level]) for level in range(len(z))])

    def init(key, x):
        return _initialize(nets, key, x, False)

    return Hierarchy(len(nets.up), init, evidence, infer, *_generative(nets), log_posterior)


def bidirectional(nets: Networks) -> Hierarchy:
    """A deterministic pass upwards, then q draws downwards from it and from what p says before each latent."""

    def evidence(params, x):
        h, maps = nets.enter(x), []
        for i, stage in enumerate(nets.up):
            h = stage.apply(params["inference"]["up"][f"{i}"], h)
            maps.append(h)
        return tuple(maps[::-1])

    def infer(params, key, e, from_posterior, temperature):
        keys, heads = jax.random.split(key, len(e)), params["inference"]["posterior"]

        def drawn(level, prior, d):
            i = len(e) - 1 - level
            q = gaussian(nets.posterior[i].apply(heads[f"{i}"], e[level], d))
            return draw_level(keys[level], prior, q, from_posterior[level], temperature[level])

        return walk(*descend(nets, params["generation"], len(e[0]), drawn))

    def init(key, x):
        return _initialize(nets, key, x, True)

    return Hierarchy(len(nets.up), init, evidence, infer, *_generative(nets))
