"""Very deep VAEs: many levels of latent images at several resolutions, inferred and generated from the top down."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Params, Spec
from genflow.distributions import soft_clip
from genflow.models.latent import Gaussian, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.observation import observation
from genflow.networks import average_pool, bottleneck, nearest_upsample
from genflow.networks.precision import as_built
from genflow.networks.vdvae import conv, gelu, init_conv

MEMORY = ("store", "remat")


def vdvae(
    spec: Spec,
    blocks: tuple[tuple[int, int], ...] = ((1, 1), (4, 3), (8, 6), (16, 11), (32, 22)),
    encoder_blocks: tuple[tuple[int, int], ...] = ((32, 12), (16, 7), (8, 7), (4, 4), (1, 3)),
    width: int = 384,
    bottleneck_width: int = 96,
    latent_channels: int = 16,
    memory: str = "store",
    likelihood: str = "auto",
    min_log_scale: float = -7.0,
    beta: float = 1.0,
    free_nats: float = 0.0,
    kl_warmup: int = 0,
) -> Model:
    """p(z) = prod_l N(z_l; mean_l(h_l), std_l(h_l)^2), q(z_l | x, z_<l) likewise from h_l and features of x.

    A block of the decoder adds z_l and more to its features: h_(l+1) = r(h_l + d(h_l) + A z_l), with r a residual
    bottleneck. Every resolution starts from a learned image, to which the one before is added by nearest neighbours.

    Args:
      blocks: (side in pixels, number of levels) of each resolution of the decoder, the coarsest first.
      encoder_blocks: likewise of the encoder, the finest first; its last block of a resolution belongs to the change
        to the next: the decoder sees what enters it.
      width, bottleneck_width: channels between and inside the bottlenecks.
      latent_channels: of each z_l, an image of the side of its block.
      memory: what the backward pass keeps: 'store' everything, 'remat' the input of every block.
      likelihood, min_log_scale: see `observation`.
      beta, free_nats, kl_warmup: see `Objective`.

    Raises:
      ValueError: no square images, sides that do not lead to them, or sizes below one.

    Reference: Child (2021), Very deep VAEs generalize autoregressive models and can outperform them on images,
    arXiv:2011.10650, and the official code. Log-standard deviations are softly clipped here.
    """
    plan = Plan((), blocks, encoder_blocks, width, bottleneck_width, latent_channels, memory, as_built(bottleneck))
    check(spec, plan)
    seen = observation(spec, likelihood, min_log_scale)
    hierarchy = very_deep(plan._replace(shape=seen.shape))
    return latent_variable(spec, hierarchy, seen, Objective(beta, free_nats, kl_warmup))


class Plan(NamedTuple):
    """The sizes of a very deep VAE; see `vdvae`."""

    shape: tuple[int, ...]  # of the observation's h
    blocks: tuple[tuple[int, int], ...]
    encoder_blocks: tuple[tuple[int, int], ...]
    width: int
    middle: int
    channels: int
    memory: str
    bottleneck: Callable[..., Network] = bottleneck

    @property
    def sides(self) -> list[int]:
        """Of the resolutions, the coarsest first."""
        return [side for side, _ in self.blocks]

    @property
    def num_levels(self) -> int:
        """How many z there are."""
        return sum(count for _, count in self.blocks)

    def body(self, function: Callable) -> Callable:
        """A function as the body of a scan over blocks."""
        return jax.checkpoint(function) if self.memory == "remat" else function

    def networks(self, side: int) -> dict[str, Network]:
        """Of one block of the decoder."""
        return {
            "prior": self.bottleneck(side, self.middle, 2 * self.channels + self.width, last_scale=0.0),
            "posterior": self.bottleneck(side, self.middle, 2 * self.channels),
            "residual": self.bottleneck(side, self.middle, self.width, last_scale=self.num_levels**-0.5),
        }

    def encoder(self, side: int) -> Network:
        """One block of the encoder."""
        total = sum(count for _, count in self.encoder_blocks)
        return self.bottleneck(side, self.middle, self.width, last_scale=total**-0.5)

    def per_resolution(self, *arrays) -> list[tuple]:
        """Arrays of one entry for each level, cut where the resolution changes."""
        counts = [count for _, count in self.blocks]
        starts = itertools.accumulate(counts[:-1], initial=0)
        return [tuple(a[start : start + count] for a in arrays) for start, count in zip(starts, counts, strict=True)]


def check(spec: Spec, plan: Plan) -> None:
    """Raises ValueError for blocks that do not fit one another or the data."""
    sides, sizes = plan.sides, {"width": plan.width, "bottleneck_width": plan.middle, "latent_channels": plan.channels}
    if plan.memory not in MEMORY:
        raise ValueError(f"memory={plan.memory!r}: expected one of {', '.join(MEMORY)}")
    if len(spec.shape) != 3 or spec.shape[0] != spec.shape[1]:
        raise ValueError(f"vdvae models square images; {spec.name} has events of shape {spec.shape}")
    if min([*sides, *sizes.values(), *(count for _, count in (*plan.blocks, *plan.encoder_blocks))]) < 1:
        raise ValueError(f"blocks, encoder_blocks, {', '.join(sizes)} must be above zero")
    if sides[-1] != spec.shape[0] or any(b % a or a == b for a, b in itertools.pairwise(sides)):
        raise ValueError(
            f"blocks={plan.blocks}: sides must be multiples of those before, up to {spec.shape[0]} pixels, the data's; "
            "change blocks and encoder_blocks, or data.image_size"
        )
    if [side for side, _ in plan.encoder_blocks] != sides[::-1]:
        raise ValueError(f"encoder_blocks={plan.encoder_blocks} must have the sides {sides[::-1]} of blocks")


def very_deep(plan: Plan) -> Hierarchy:
    """The levels of `vdvae`. z is a tuple of [B, levels of a resolution, side, side, channels], the coarsest first."""

    def infer(params, key, e, from_posterior, temperature):
        def choose(p, g, prior, given, i):
            key_l, from_posterior_l, temperature_l, network = *given, plan.networks(plan.sides[i])["posterior"]
            posterior = _gaussian(network.apply(p["posterior"], jnp.concatenate((g, e[i]), -1)))
            drawn = draw_level(key_l, prior, posterior, from_posterior_l, temperature_l)
            return drawn.z, drawn

        inputs = plan.per_resolution(jax.random.split(key, plan.num_levels), from_posterior, temperature)
        h, drawn = top_down(plan, params, len(e[0]), choose, inputs)
        z, *terms = zip(*drawn, strict=True)
        return Walk(_batch_first(z), h, *(jnp.concatenate(term) for term in terms))

    def joint(params, z):
        def choose(p, g, prior, given, i):
            return given, prior.log_prob(given)

        h, log_priors = top_down(plan, params, len(z[0]), choose, _batch_first(z))
        return h, jnp.concatenate(log_priors)

    def generate(params, key, num, temperature):
        def choose(p, g, prior, given, i):
            z = prior.draw(*given)
            return z, z

        inputs = plan.per_resolution(jax.random.split(key, plan.num_levels), temperature)
        h, z = top_down(plan, params, num, choose, inputs)
        return _batch_first(z), h

    init, evidence = functools.partial(_init, plan), functools.partial(_evidence, plan)
    return Hierarchy(plan.num_levels, init, evidence, infer, joint, generate)


def top_down(plan: Plan, params: Params, num: int, choose: Callable, inputs: list) -> tuple:
    """All blocks of the decoder: (what the observation is given, what is kept of each resolution, stacked).

    Args:
      choose: (the block's parameters, gelu(h), prior, what the level is given, index of the resolution) -> (z, kept)
      inputs: what the levels of each resolution are given, stacked
    """
    h, kept = 0.0, []
    for i, (side, given) in enumerate(zip(plan.sides, inputs, strict=True)):
        networks = plan.networks(side)

        def block(h, level, i=i, networks=networks):
            p, given = level
            g = gelu(h)
            raw, more = jnp.split(networks["prior"].apply(p["prior"], g), (2 * plan.channels,), -1)
            z, out = choose(p, g, _gaussian(raw), given, i)
            h += more + conv(p["latent"], z)
            return h + networks["residual"].apply(p["residual"], gelu(h)), out

        resolution = params["decoder"][str(side)]
        h = nearest_upsample(h, side // plan.sides[i - 1]) if i else h
        h += jnp.broadcast_to(resolution["start"], (num, side, side, plan.width))
        h, out = jax.lax.scan(plan.body(block), h, (resolution["blocks"], given))
        kept.append(out)
    output = params["output"]
    return conv(output, h * output["scale"] + output["shift"]).reshape(num, *plan.shape), kept


def _gaussian(raw):
    mean, log_std = jnp.split(raw, 2, -1)
    return Gaussian(mean, soft_clip(log_std))


def _batch_first(z):
    """Levels and batch of every resolution exchanged, either way."""
    return tuple(a.swapaxes(0, 1) for a in z)


def _evidence(plan, params, x):
    """gelu of the encoder's features at every resolution, the coarsest first."""
    params, features, last = params["encoder"], [], None
    h = conv(params["input"], x)
    for side, _ in plan.encoder_blocks:
        network = plan.encoder(side)

        def block(carry, p, network=network):
            h = carry[0]
            return (h + network.apply(p, gelu(h)), h), None

        h = average_pool(h, last // side) if last else h
        (h, before), _ = jax.lax.scan(plan.body(block), (h, h), params[str(side)])
        features.append(before)
        last = side
    return tuple(gelu(f) for f in (h, *features[-2::-1]))


def _init(plan, key, x):
    key_encoder, key_decoder, key_output = jax.random.split(key, 3)
    keys = jax.random.split(key_decoder, len(plan.blocks))
    output = init_conv(key_output, 1, plan.width, math.prod(plan.shape[2:]))
    return {
        "encoder": _init_encoder(plan, key_encoder, x.shape[-1]),
        "decoder": {str(b[0]): _init_resolution(plan, k, *b) for k, b in zip(keys, plan.blocks, strict=True)},
        "output": output | {"scale": jnp.ones(plan.width), "shift": jnp.zeros(plan.width)},
    }


def _init_encoder(plan, key, channels):
    key_input, *keys = jax.random.split(key, len(plan.encoder_blocks) + 1)
    params = {"input": init_conv(key_input, 3, channels, plan.width)}
    for k, (side, count) in zip(keys, plan.encoder_blocks, strict=True):
        init = functools.partial(plan.encoder(side).init, x=jnp.zeros((1, 1, 1, plan.width)))
        params[str(side)] = jax.vmap(init)(jax.random.split(k, count))
    return params


def _init_resolution(plan, key, side, count):
    def block(key):
        *keys, key_latent = jax.random.split(key, 4)
        params = {"latent": init_conv(key_latent, 1, plan.channels, plan.width)}
        params["latent"]["kernel"] *= plan.num_levels**-0.5
        for k, (name, network) in zip(keys, plan.networks(side).items(), strict=True):
            params[name] = network.init(k, jnp.zeros((1, 1, 1, plan.width * (1 + (name == "posterior")))))
        return params

    start = jnp.zeros((side, side, plan.width))
    return {"blocks": jax.vmap(block)(jax.random.split(key, count)), "start": start}
