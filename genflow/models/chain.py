"""Generation through a chain of Gaussian levels, p(z_1) p(z_2 | z_1) ... p(x | z_L): ancestral, level 1 first."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Params
from genflow.distributions import soft_clip
from genflow.models.latent import Gaussian
from genflow.models.observation import Observation
from genflow.networks import glorot_mlp

RAREST = 0.001  # how often a pixel is on that no example of the first batch has on


class Chain(NamedTuple):
    """The generative half of a hierarchy; latents z are a tuple of [B, D], level 1 first.

    init(key, x) -> params
    prior(params, level, above) -> Gaussian of level 0 .. L - 1 given the draw of the level before; level 0 takes any
        array of that batch size
    decode(params, z_last) -> h
    joint(params, z) and generate(params, key, num, temperature) as in `Hierarchy`
    """

    init: Callable[..., Params]
    prior: Callable[..., Gaussian]
    decode: Callable[..., Array]
    joint: Callable[..., tuple[Array, Float[Array, "L B"]]]
    generate: Callable[..., tuple[tuple[Array, ...], Array]]


def check_sizes(latents: tuple[int, ...], widths: tuple[tuple[int, ...], ...]) -> None:
    """Raises ValueError unless every level has a size and at least one hidden layer."""
    if not latents or len(widths) != len(latents) or not all(widths):
        raise ValueError(f"latents={latents} and widths={widths}: every level needs a size and a tuple of widths")
    if min((*latents, *(width for group in widths for width in group))) < 1:
        raise ValueError(f"latents={latents} and widths={widths} must be above zero")


def as_gaussian(raw: Float[Array, "B two_D"]) -> Gaussian:
    """Mean and log-standard deviation from two heads; the latter between -7 and 7."""
    mean, log_std = jnp.split(raw, 2, -1)
    return Gaussian(mean, soft_clip(log_std))


def chain(
    seen: Observation,
    latents: tuple[int, ...],
    widths: tuple[tuple[int, ...], ...],
    activation: Callable,
    normalize: bool = False,
    is_binary: bool = False,
) -> Chain:
    """p(z_1) = N(0, I), p(z_l | z_(l-1)) = N(mean, std^2) and h of p(x | h), from perceptrons.

    Args:
      latents, widths: nearest to the data first, as an encoder sees them; here each group of widths is reversed.
      is_binary: the decoder's biases start at the logits of the first batch's pixel means.
    """
    sizes = latents[::-1]
    layers = [glorot_mlp(d, w[::-1], activation, 2, normalize) for d, w in zip(sizes[1:], widths[:0:-1], strict=True)]
    decoder = glorot_mlp(math.prod(seen.shape), widths[0][::-1], activation, 1, normalize)
    networks = {f"level_{i}": layer for i, layer in enumerate(layers, 2)} | {"decoder": decoder}

    def init(key, x):
        keys = jax.random.split(key, len(networks))
        inputs = (jnp.zeros((x.shape[0], d), x.dtype) for d in sizes)
        params = {name: networks[name].init(*pair) for name, *pair in zip(networks, keys, inputs, strict=True)}
        if is_binary:
            last = params["decoder"]["heads"]["Dense_0"]
            on = jnp.clip((x.reshape(x.shape[0], -1).mean(0) + 1) / 2, RAREST, 1 - RAREST)
            last["bias"] = jax.scipy.special.logit(on).astype(last["bias"].dtype)
        return params

    def prior(params, level, above):
        if level:
            name = f"level_{level + 1}"
            return as_gaussian(networks[name].apply(params[name], above))
        zeros = jnp.zeros((above.shape[0], sizes[0]))
        return Gaussian(zeros, zeros)

    def decode(params, z_last):
        return decoder.apply(params["decoder"], z_last).reshape(z_last.shape[0], *seen.shape)

    def joint(params, z):
        log_prior = [prior(params, i, z[i - 1]).log_prob(z[i]) for i in range(len(sizes))]
        return decode(params, z[-1]), jnp.stack(log_prior)

    def generate(params, key, num, temperature):
        z = (jnp.zeros((num, 0)),)
        for i, key_level in enumerate(jax.random.split(key, len(sizes))):
            z += (prior(params, i, z[-1]).draw(key_level, temperature[i]),)
        return z[1:], decode(params, z[-1])

    return Chain(init, prior, decode, joint, generate)
