"""The ResNet VAE with bidirectional inference, and one step of inverse autoregressive flow in every posterior.

A level that is drawn from its prior has the prior's density as its `log_posterior`, for that is what drew it: the
flow's own would take as many evaluations as a latent image has values.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Params, Spec, sum_event
from genflow.distributions import soft_clip
from genflow.models.latent import Drawn, Gaussian, Hierarchy, Objective, Walk, latent_variable
from genflow.models.observation import observation
from genflow.networks import average_pool, nearest_upsample, to_channels, to_pixels
from genflow.networks.iaf_vae import bottom_up, elu_conv, masked_convs
from genflow.networks.precision import as_built

MEMORY = ("store", "remat")


def iaf_vae(
    spec: Spec,
    blocks: tuple[int, ...] = (20,),
    width: int = 160,
    latent_channels: int = 32,
    memory: str = "store",
    min_log_scale: float = -5.0,
    beta: float = 1.0,
    free_nats: float = 0.0,
    kl_warmup: int = 0,
) -> Model:
    """q(z_l | x, z_<l): z_l = (y - m(y, c)) / exp(s(y, c)), y ~ N(mean, std^2), log q = log N(y) + sum s.

    m and s are masked convolutions: those of a value of y see the values before it, and the context c. The parameters
    of y and c are sums of what the features above the level and those of the encoder say. The scale of a logistic or
    Gaussian likelihood is one number.

    Args:
      blocks: residual blocks, with a level each, at a half of the image's size, a quarter, and so on.
      width: channels between the blocks, and of the masked convolutions.
      latent_channels: of each z_l.
      memory: what the backward pass keeps: 'store' everything, 'remat' the input of every block.
      min_log_scale: see `observation`.
      beta, free_nats, kl_warmup: see `Objective`; the free nats are those of a level.

    Raises:
      ValueError: no images, sides that cannot be halved so often, or sizes below one.

    Reference: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow, arXiv:1606.04934,
    section 4 and appendix C, and the official code.
    """
    if len(spec.shape) != 3 or any(side % 2 ** len(blocks) for side in spec.shape[:2]):
        raise ValueError(
            f"blocks={blocks} halve images {len(blocks)} times, and {spec.name} has events {spec.shape}; give blocks "
            f"fewer values, or set data.image_size to a multiple of {2 ** len(blocks)}"
        )
    if not blocks or min((*blocks, width, latent_channels)) < 1:
        raise ValueError(f"blocks={blocks}, width={width} and latent_channels={latent_channels} must be above zero")
    if memory not in MEMORY:
        raise ValueError(f"memory={memory!r}: expected one of {', '.join(MEMORY)}")
    seen = observation(spec, min_log_scale=min_log_scale)
    builders = tuple(as_built(builder) for builder in (bottom_up, elu_conv, masked_convs))
    hierarchy = residual_levels(Plan(seen.shape, blocks, width, latent_channels, memory, builders))
    return latent_variable(spec, hierarchy, seen, Objective(beta, free_nats, kl_warmup))


class Plan(NamedTuple):
    """The sizes of a ResNet VAE; see `iaf_vae`."""

    shape: tuple[int, ...]  # of the observation's h: [H, W, C, parameters]
    blocks: tuple[int, ...]
    width: int
    channels: int
    memory: str
    builders: tuple[Callable[..., Network], ...] = (bottom_up, elu_conv, masked_convs)

    @property
    def networks(self) -> dict:
        """Of one block, and of the two ends."""
        bottom_up, elu_conv, masked_convs = self.builders
        return {
            "up": bottom_up(self.width, self.channels),
            "told": elu_conv(4 * self.channels + 2 * self.width),
            "flow": masked_convs(self.width),
            "added": elu_conv(self.width),
            "input": elu_conv(self.width, is_first=True),
            "output": elu_conv(4 * self.shape[2]),
        }

    def body(self, function: Callable) -> Callable:
        """A function as the body of a scan over blocks."""
        return jax.checkpoint(function) if self.memory == "remat" else function

    def per_resolution(self, *arrays) -> list[tuple]:
        """Arrays of one entry for each level, cut where the resolution changes; the coarsest first."""
        starts = itertools.accumulate(self.blocks[:0:-1], initial=0)
        return [
            tuple(a[start : start + count] for a in arrays)
            for start, count in zip(starts, self.blocks[::-1], strict=True)
        ]


class Told(NamedTuple):
    """What the features above a level say."""

    prior: Gaussian
    posterior: tuple  # mean, log-std and context, to which the encoder's are added
    rest: jax.Array


def told(plan: Plan, raw: jax.Array) -> Told:
    """Cuts the output of the network of that name."""
    c, w = plan.channels, plan.width
    mean, log_std, *posterior, rest = jnp.split(raw, (c, 2 * c, 3 * c, 4 * c, 4 * c + w), -1)
    return Told(Gaussian(mean, soft_clip(log_std)), tuple(posterior), rest)


def flow_level(plan, params, key, prior, posterior, from_posterior=True, temperature=1.0) -> Drawn:
    """Draws a level from the flow or from the prior, with the same noise.

    Args:
      posterior: mean, log-std and context of the flow.
    """
    mean, log_std, context = posterior
    base = Gaussian(mean, soft_clip(log_std))
    y = base.draw(key, temperature)
    shift, log_scale = jnp.split(plan.networks["flow"].apply(params, y, context), 2, -1)
    log_scale = soft_clip(log_scale)
    z = jnp.where(from_posterior, (y - shift) * jnp.exp(-log_scale), prior.draw(key, temperature))
    log_prior = prior.log_prob(z)
    log_posterior = jnp.where(from_posterior, base.log_prob(y) + sum_event(log_scale), log_prior)
    return Drawn(z, log_prior, log_posterior, log_posterior - log_prior)


def residual_levels(plan: Plan) -> Hierarchy:
    """The levels of `iaf_vae`. z is a tuple of [B, levels of a resolution, h, w, channels], the coarsest first."""
    num_levels = sum(plan.blocks)

    def infer(params, key, e, from_posterior, temperature):
        def choose(p, said, given):
            key_l, from_posterior_l, temperature_l, of_x = given
            drawn = flow_level(
                plan, p["flow"], key_l, said.prior, _sum(plan, said, of_x), from_posterior_l, temperature_l
            )
            return drawn.z, drawn

        inputs = plan.per_resolution(jax.random.split(key, num_levels), from_posterior, temperature)
        inputs = [(*arrays, of_x) for arrays, of_x in zip(inputs, _batch_first(e), strict=True)]
        h, drawn = top_down(plan, params, len(e[0]), choose, inputs)
        z, *terms = zip(*drawn, strict=True)
        return Walk(_batch_first(z), h, *(jnp.concatenate(term) for term in terms))

    def joint(params, z):
        h, log_priors = top_down(
            plan, params, len(z[0]), lambda p, said, z: (z, said.prior.log_prob(z)), _batch_first(z)
        )
        return h, jnp.concatenate(log_priors)

    def generate(params, key, num, temperature):
        def choose(p, said, given):
            z = said.prior.draw(*given)
            return z, z

        inputs = plan.per_resolution(jax.random.split(key, num_levels), temperature)
        h, z = top_down(plan, params, num, choose, inputs)
        return _batch_first(z), h

    init, evidence = functools.partial(_init, plan), functools.partial(_evidence, plan)
    return Hierarchy(num_levels, init, evidence, infer, joint, generate)


def top_down(plan: Plan, params: Params, num: int, choose: Callable, inputs: list) -> tuple:
    """All levels: (what the observation is given, what is kept of each resolution, stacked).

    Args:
      choose: (the block's parameters, `Told`, what the level is given) -> (z, kept)
      inputs: what the levels of each resolution are given, stacked
    """
    networks = plan.networks

    def block(h, level):
        p, given = level
        said = told(plan, networks["told"].apply(p["told"], h))
        z, out = choose(p, said, given)
        return _plus(networks, p, h, z, said), out

    h, kept = _top(plan, params["top"], num), []
    for i, given in enumerate(inputs):
        h = nearest_upsample(h, 2) if i else h
        h, out = jax.lax.scan(plan.body(block), h, (params["down"][str(i)], given))
        kept.append(out)
    return _told_data(plan, params, h), kept


def _plus(networks, p, h, z, said):
    return h + 0.1 * networks["added"].apply(p["added"], jnp.concatenate((z, said.rest), -1))


def _top(plan, top, num):
    scale = 2 ** len(plan.blocks)
    return jnp.broadcast_to(top, (num, plan.shape[0] // scale, plan.shape[1] // scale, plan.width))


def _told_data(plan, params, h):
    """[B, H, W, C, parameters]: means (or logits), and where there are two, the one log-scale."""
    mean = to_pixels(plan.networks["output"].apply(params["output"], h), 2)[..., None]
    if plan.shape[-1] == 1:
        return mean
    return jnp.concatenate((mean, jnp.broadcast_to(params["log_scale"], mean.shape)), -1)


def _sum(plan, said, of_x):
    parts = jnp.split(of_x, (plan.channels, 2 * plan.channels), -1)
    return tuple(a + b for a, b in zip(said.posterior, parts, strict=True))


def _batch_first(tree):
    """Levels and batch of every resolution exchanged, either way."""
    return tuple(a.swapaxes(0, 1) for a in tree)


def _evidence(plan, params, x):
    """What the encoder says to each level [B, levels, h, w, ...], the coarsest resolution first."""
    networks, said = plan.networks, []
    h = networks["input"].apply(params["input"], to_channels(x, 2))
    for i in range(len(plan.blocks)):
        h = average_pool(h, 2) if i else h
        block = plan.body(lambda h, p: networks["up"].apply(p, h))
        # backwards, because the last block of the encoder belongs to the first level
        h, of_blocks = jax.lax.scan(block, h, params["up"][str(i)], reverse=True)
        said.append(of_blocks)
    return _batch_first(said[::-1])


def _init(plan, key, x):
    """Every convolution starts from what the first batch brings to it, so the batch goes all the way."""
    key_input, key_up, key_down, key_output = jax.random.split(key, 4)
    params = {"input": plan.networks["input"].init(key_input, to_channels(x, 2)), "top": jnp.zeros(plan.width)}
    params["up"] = _init_up(plan, key_up, plan.networks["input"].apply(params["input"], to_channels(x, 2)))
    h, params["down"] = _init_down(plan, key_down, _top(plan, params["top"], len(x)), _evidence(plan, params, x))
    params["output"] = plan.networks["output"].init(key_output, h)
    return params if plan.shape[-1] == 1 else params | {"log_scale": jnp.zeros(())}


def _init_up(plan, key, h):
    network, params = plan.networks["up"], {}

    def block(h, key):
        p = network.init(key, h)
        return network.apply(p, h)[0], p

    for i, count in enumerate(plan.blocks):
        h = average_pool(h, 2) if i else h
        h, params[str(i)] = jax.lax.scan(block, h, jax.random.split(jax.random.fold_in(key, i), count), reverse=True)
    return params


def _init_down(plan, key, h, e):
    networks, params = plan.networks, {}

    def block(h, level):
        key, of_x = level
        keys = jax.random.split(key, 4)
        p = {"told": networks["told"].init(keys[0], h)}
        said = told(plan, networks["told"].apply(p["told"], h))
        mean, log_std, context = posterior = _sum(plan, said, of_x)
        p["flow"] = networks["flow"].init(keys[1], Gaussian(mean, soft_clip(log_std)).draw(keys[2]), context)
        z = flow_level(plan, p["flow"], keys[2], said.prior, posterior).z
        p["added"] = networks["added"].init(keys[3], jnp.concatenate((z, said.rest), -1))
        return _plus(networks, p, h, z, said), p

    for i, of_x in enumerate(_batch_first(e)):
        h = nearest_upsample(h, 2) if i else h
        h, params[str(i)] = jax.lax.scan(block, h, (jax.random.split(jax.random.fold_in(key, i), len(of_x)), of_x))
    return h, params
