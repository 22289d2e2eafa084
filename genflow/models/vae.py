"""Variational autoencoders with one level of latents."""

import math

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec
from genflow.distributions import soft_clip
from genflow.models.latent import Gaussian, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.observation import Observation, observation
from genflow.networks import ACTIVATIONS, mlp


def vae(
    spec: Spec,
    latent_dims: int = 16,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "silu",
    likelihood: str = "auto",
    min_log_scale: float = -5.0,
    std: float = 0.0,
    beta: float = 1.0,
    free_nats: float = 0.0,
    kl_warmup: int = 0,
    samples: int = 1,
    gradient: str = "reparameterized",
) -> Model:
    """Gaussian posterior and prior, ELBO = E_q[log p(x | z)] - KL(q(z | x) || p(z)).

    Args:
      widths: of the encoder's hidden layers; the decoder has them in the other order.
      likelihood, min_log_scale, std: see `observation`.
      beta, free_nats, kl_warmup, samples, gradient: see `Objective`.

    Raises:
      ValueError: sizes, a likelihood that does not fit the data, or terms of the objective that exclude each other.

    Reference: Kingma and Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114, equation 10.
    """
    if min((latent_dims, *widths)) < 1:
        raise ValueError(f"latent_dims={latent_dims} and widths={widths} must be above zero")
    seen = observation(spec, likelihood, min_log_scale, std)
    hierarchy = one_level(seen, latent_dims, widths, activation)
    return latent_variable(spec, hierarchy, seen, Objective(beta, free_nats, kl_warmup, samples, gradient))


def one_level(seen: Observation, latent_dims: int, widths: tuple[int, ...], activation: str) -> Hierarchy:
    """z ~ N(0, I), h = decoder(z), q(z | x) = N(mean(x), std(x)^2): perceptrons both."""
    encoder = mlp(widths, ACTIVATIONS[activation])(2 * latent_dims)
    decoder = mlp(widths[::-1], ACTIVATIONS[activation])(math.prod(seen.shape))
    prior = Gaussian(jnp.zeros(()), jnp.zeros(()))

    def init(key, x):
        key_encoder, key_decoder = jax.random.split(key)
        z = jnp.zeros((x.shape[0], latent_dims), x.dtype)
        return {
            "inference": {"encoder": encoder.init(key_encoder, x)},
            "generation": {"decoder": decoder.init(key_decoder, z)},
        }

    def evidence(params, x):
        mean, log_std = jnp.split(encoder.apply(params["inference"]["encoder"], x), 2, -1)
        return Gaussian(mean, soft_clip(log_std))

    def decoded(params, z):
        return decoder.apply(params["generation"]["decoder"], z).reshape(z.shape[0], *seen.shape)

    def infer(params, key, e, from_posterior, temperature):
        drawn = draw_level(key, prior, e, from_posterior[0], temperature[0])
        levels = (jnp.stack([term]) for term in drawn[1:])
        return Walk(drawn.z, decoded(params, drawn.z), *levels)

    def joint(params, z):
        return decoded(params, z), prior.log_prob(z)[None]

    def generate(params, key, num, temperature):
        z = temperature[0] * jax.random.normal(key, (num, latent_dims))
        return z, decoded(params, z)

    def log_posterior(params, e, z):
        return e.log_prob(z)[None]

    return Hierarchy(1, init, evidence, infer, joint, generate, log_posterior)
