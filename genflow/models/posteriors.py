"""Approximate posteriors of one level of latents: a Gaussian that an encoder computes, and flows behind it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from genflow import bijectors as bj
from genflow.core import Bijector, Network, Params
from genflow.distributions import soft_clip
from genflow.models.latent import Gaussian
from genflow.networks import made, mlp

POSTERIORS = ("gaussian", "planar", "iaf", "coupling")


class Posterior(NamedTuple):
    """q(z | x). x is scaled to [-1, 1].

    init(key, x) -> params
    evidence(params, x) -> e: what q needs of the data, leaves [B, ...]
    draw(params, key, e, temperature) -> (z [B, D], log q(z | x) [B]); the temperature multiplies the noise
    log_prob(e, z) -> [B] of given latents; None where that takes a flow's inverse
    """

    init: Callable[..., Params]
    evidence: Callable[[Params, Array], PyTree]
    draw: Callable[..., tuple[Array, Float[Array, " B"]]]
    log_prob: Callable[..., Float[Array, " B"]] | None = None


def gaussian_posterior(encoder: Callable[[int], Network], latent_dims: int) -> Posterior:
    """q(z | x) = N(z; mean(x), diag std(x)^2), both by one encoder: evidence is a `Gaussian`.

    Reference: Kingma and Welling (2014), arXiv:1312.6114, equation 9.
    """
    network = encoder(2 * latent_dims)

    def evidence(params, x):
        return _gaussian(network.apply(params["encoder"], x))

    def draw(params, key, e, temperature=1.0):
        z = e.draw(key, temperature)
        return z, e.log_prob(z)

    return Posterior(lambda key, x: {"encoder": network.init(key, x)}, evidence, draw, lambda e, z: e.log_prob(z))


def flow_posterior(
    encoder: Callable[[int], Network], latent_dims: int, bijector: Bijector, context_dims: int
) -> Posterior:
    """log q(z | x) = log N(z_0; mean(x), diag std(x)^2) - log |det dz/dz_0| with z = bijector(z_0, context(x)).

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770, equation 13; Kingma et al. (2016), arXiv:1606.04934,
    algorithm 1, for the context.
    """
    network = encoder(2 * latent_dims + context_dims)

    def init(key, x):
        params = {"encoder": network.init(key, x)}
        start, context = evidence(params, x)
        return params | {"flow": bijector.init(jax.random.fold_in(key, 1), start.mean, context)[0]}

    def evidence(params, x):
        h = network.apply(params["encoder"], x)
        return _gaussian(h[:, : 2 * latent_dims]), h[:, 2 * latent_dims :]

    def draw(params, key, e, temperature=1.0):
        start, context = e
        noise = start.draw(key, temperature)
        z, log_det = bijector.forward(params["flow"], noise, context)
        return z, start.log_prob(noise) - log_det

    return Posterior(init, evidence, draw)


def _gaussian(h):
    mean, log_std = jnp.split(h, 2, axis=-1)
    return Gaussian(mean, soft_clip(log_std))


def posterior(
    name: str, encoder: Callable[[int], Network], latent_dims: int, depth: int, widths: tuple[int, ...], context: int
) -> Posterior:
    """The posteriors by name: 'gaussian', 'planar', 'iaf' (inverse autoregressive) or 'coupling'.

    Args:
      depth, widths: layers of the flow, and hidden units of each layer's network (planar layers have none).
      context: numbers that the encoder tells the flow about x.

    Raises:
      ValueError: an unknown name; a flow without context, or one of fewer dimensions than it needs.
    """
    if name not in POSTERIORS:
        raise ValueError(f"posterior={name!r}: expected one of {', '.join(POSTERIORS)}")
    if name == "gaussian":
        return gaussian_posterior(encoder, latent_dims)
    if min(depth, context) < 1:
        raise ValueError(f"posterior={name!r} needs posterior_depth={depth} and context_dims={context} above zero")
    if latent_dims < 2 and name != "planar":
        raise ValueError(f"posterior={name!r} needs latent_dims={latent_dims} above one; take 'planar'")
    return flow_posterior(encoder, latent_dims, _flow(name, depth, widths), context)


def _flow(name: str, depth: int, widths: tuple[int, ...]) -> Bijector:
    if name == "planar":
        return bj.repeat(bj.planar(), depth)
    if name == "coupling":
        return couplings(depth, widths)
    return reversing(bj.masked_autoregressive(bj.forget_gate(), made(widths)), depth)


def couplings(depth: int, widths: tuple[int, ...]) -> Bijector:
    """`depth` affine couplings of vectors, with perceptrons; the identity at the start."""
    return reversing(bj.coupling(bj.affine(bj.tanh_scale()), mlp(widths, zero_last=True)), depth)


def reversing(layer: Bijector, depth: int) -> Bijector:
    """`depth` layers, after each of which the order of the dimensions is reversed."""
    return bj.repeat(bj.chain(layer=layer, flip=bj.flip()), depth)
