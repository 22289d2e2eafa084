"""The two towers of NVAE: the encoder, which goes up, and the groups of latents and decoder cells, which come down."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from genflow.core import Network, Params
from genflow.distributions import soft_clip
from genflow.models.latent import Drawn, Gaussian, draw_level
from genflow.networks.nvae import (
    autoregressive_shift,
    chain,
    convolution,
    copies,
    decoder_cell,
    down_cell,
    encoder_cell,
    kept,
    recomputed,
    repeated,
    up_cell,
)

LIMIT = 5.0  # of means and log-standard deviations


class Sizes(NamedTuple):
    """The sizes of the networks; see `nvae`. Scales are counted from the coarsest."""

    width: int
    groups: tuple[int, ...]
    channels: int
    cells: int
    blocks: int
    block_cells: int
    flows: int
    memory: str

    @property
    def halvings(self) -> int:
        """How often the side of an image is halved up to the coarsest scale."""
        return self.blocks + len(self.groups) - 1

    @property
    def stages(self) -> tuple[int, ...]:
        """Groups of each scale that a scan goes over: all but the topmost, which is alone."""
        return (self.groups[0] - 1, *self.groups[1:])

    def features(self, like: Array, scale: int) -> Array:
        """Zeros of the shape that the decoder has at a scale, given those of the coarsest."""
        B, h, w, _ = like.shape
        return jnp.zeros((B, h * 2**scale, w * 2**scale, self.width_at(scale)), like.dtype)

    def width_at(self, scale: int) -> int:
        """Channels of encoder and decoder."""
        return self.width * 2 ** (self.halvings - scale)


def encoder(sizes: Sizes) -> Network:
    """x -> what each group needs: [B, h, w, C] for the topmost, then [B, n, h, w, C] for each scan, coarsest first."""
    last = len(sizes.groups) - 1
    before = _before(sizes)
    columns = [repeated(encoder_cell(sizes.width_at(i)), sizes.cells) for i in range(last + 1)]
    downs = [recomputed(down_cell(sizes.width_at(i)), sizes.memory) for i in range(last)]
    top = convolution(sizes.width_at(0), before=jax.nn.elu)

    def init(key, x, cond=None):
        params = {"before": before.init(key, x)}
        coarsest = x[:, :: 2**sizes.halvings, :: 2**sizes.halvings]
        for i, n in enumerate(sizes.groups):
            params[f"groups_{i}"] = copies(columns[i].init(key, sizes.features(coarsest, i)), n)
            if i < last:
                params[f"down_{i}"] = downs[i].init(key, sizes.features(coarsest, i + 1))
        return params | {"top": top.init(key, sizes.features(coarsest, 0))}

    def apply(params, x, cond=None, key=None):
        s, found = before.apply(params["before"], x), []
        for i in reversed(range(last + 1)):
            s = downs[i].apply(params[f"down_{i}"], s) if i < last else s
            body = kept(lambda s, p, c=columns[i]: (c.apply(p, s),) * 2, sizes.memory)
            s, features = jax.lax.scan(body, s, params[f"groups_{i}"])
            found = [features[::-1].swapaxes(0, 1), *found]
        found[0] = found[0][:, 1:]  # its first is s
        return (jax.nn.elu(top.apply(params["top"], s)), *(f for f in found if f.shape[1]))

    return Network(init, apply)


def _before(sizes):
    parts, memory = {"stem": convolution(sizes.width, 3)}, sizes.memory
    for b in range(sizes.blocks):
        width = sizes.width * 2**b
        cells = sizes.block_cells - 1
        normal = {"cells": repeated(encoder_cell(width), cells, memory)} if cells else {}
        parts[f"block_{b}"] = chain(**normal, down=recomputed(down_cell(2 * width), memory))
    return chain(**parts)


class Group(NamedTuple):
    """The networks of one group of latents, given s, what the decoder has come to; the topmost has no s."""

    cells: Network
    prior: Network
    context: Network
    posterior: Network
    flows: Network | None
    merge: Network

    def init(self, s: Array, channels: int, topmost: bool = False) -> Params:
        """Parameters from features and the channels of z, before `randomized`."""
        z = jnp.zeros((*s.shape[:-1], channels))
        names = ("posterior",) if topmost else ("cells", "prior", "context", "posterior")
        params = {name: getattr(self, name).init(None, s) for name in names}
        params["merge"] = self.merge.init(None, jnp.concatenate([s, z], -1))
        return params | ({"flows": self.flows.init(None, z)} if self.flows else {})

    def draw(self, p: Params, s: Array | None, raw: Array, e: Array, key, from_posterior, temperature) -> Drawn:
        """One draw of the group, from evidence e; raw: the parameters of the prior."""
        e = e if s is None else e + self.context.apply(p["context"], s)
        prior, base = gaussian(raw), gaussian(raw + self.posterior.apply(p["posterior"], e))
        one = draw_level(key, prior, base, from_posterior, temperature)
        if self.flows is None:
            return one
        z = jnp.where(from_posterior, self.flows.apply(p["flows"], one.z), one.z)
        log_prior = prior.log_prob(z)
        log_posterior = jnp.where(from_posterior, base.log_prob(one.z), log_prior)
        return Drawn(z, log_prior, log_posterior, log_posterior - log_prior)

    def visit(self, p: Params, s: Array, visitor: Callable, given: PyTree) -> tuple[Array, tuple]:
        """(s, what visitor(group, p, s, raw, given) told): its first is z, which s takes in."""
        s = self.cells.apply(p["cells"], s)
        told = visitor(self, p, s, self.prior.apply(p["prior"], s), given)
        return self.merged(p, s, told[0]), told

    def merged(self, p: Params, s: Array, z: Array) -> Array:
        """s with z taken in."""
        return self.merge.apply(p["merge"], jnp.concatenate([s, z], -1))


def gaussian(raw: Array) -> Gaussian:
    """Mean and log-standard deviation, both within +-5 (the means too, as in the official code).

    The official code adds 0.01 to every standard deviation; here exp(-5) = 0.007 is the least.
    """
    return Gaussian(*jnp.split(soft_clip(raw, LIMIT), 2, axis=-1))


def group(sizes: Sizes, scale: int) -> Group:
    """The group's networks at one scale."""
    width, channels = sizes.width_at(scale), sizes.channels
    shifts = {f"shift_{i}": shifted(autoregressive_shift(channels, i % 2 == 1)) for i in range(2 * sizes.flows)}
    return Group(
        repeated(decoder_cell(width), sizes.cells),
        convolution(2 * channels, before=jax.nn.elu),
        convolution(width),
        convolution(2 * channels, 3),
        chain(**shifts) if shifts else None,
        convolution(width),
    )


def shifted(shift: Network) -> Network:
    """z - shift(z)."""
    return Network(shift.init, lambda params, z, cond=None, key=None: z - shift.apply(params, z))


class Decoder(NamedTuple):
    """What comes down.

    init(key, s) -> params, from features of the coarsest scale's shape
    apply(params, num, visitor, given) -> (h [num, H, W, features], told)
    given, told: of the topmost group, then of each scan with a leading axis of its groups; visitor: see `Group.visit`
    """

    init: Callable[..., Params]
    apply: Callable[..., tuple[Array, list]]


def decoder(sizes: Sizes, features: int) -> Decoder:
    """Groups from the coarsest scale to the finest, then cells up to the full resolution."""
    scales = range(len(sizes.groups))
    groups = [group(sizes, i) for i in scales]
    ups = [recomputed(up_cell(sizes.width_at(i)), sizes.memory) for i in scales[1:]]
    after = _after(sizes, features)

    def init(key, s):
        params = {"start": jnp.ones(s.shape[1:]), "top": groups[0].init(s, sizes.channels, topmost=True)}
        for i in scales:
            if sizes.stages[i]:
                here = sizes.features(s, i)
                params[f"groups_{i}"] = copies(groups[i].init(here, sizes.channels), sizes.stages[i])
            if i < len(ups):
                params[f"up_{i}"] = ups[i].init(key, sizes.features(s, i))
        return params | {"after": after.init(key, sizes.features(s, scales[-1]))}

    def apply(params, num, visitor, given):
        s = jnp.broadcast_to(params["start"], (num, *params["start"].shape))
        raw = jnp.zeros((*s.shape[:-1], 2 * sizes.channels), s.dtype)
        first, *rest = given
        told = [visitor(groups[0], params["top"], None, raw, first)]
        s = groups[0].merged(params["top"], s, told[0][0])
        for i in scales:
            if sizes.stages[i]:
                body = kept(lambda s, a, g=groups[i]: g.visit(a[0], s, visitor, a[1]), sizes.memory)
                s, more = jax.lax.scan(body, s, (params[f"groups_{i}"], rest.pop(0)))
                told.append(more)
            s = ups[i].apply(params[f"up_{i}"], s) if i < len(ups) else s
        return after.apply(params["after"], s), told

    return Decoder(init, apply)


def _after(sizes, features):
    parts, memory = {}, sizes.memory
    for b in reversed(range(sizes.blocks)):
        width = sizes.width * 2**b
        cells = sizes.block_cells - 1
        normal = {"cells": repeated(decoder_cell(width, 3), cells, memory)} if cells else {}
        parts[f"block_{b}"] = chain(up=recomputed(up_cell(width, 3), memory), **normal)
    return chain(**parts, head=convolution(features, 3, before=jax.nn.elu))
