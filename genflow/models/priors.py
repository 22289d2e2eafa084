"""Priors of one level of latents: standard normal, flows, mixtures, and mixtures of posteriors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow import bijectors as bj
from genflow.core import Bijector, Params
from genflow.distributions import normal_log_prob, soft_clip, standard_normal_log_prob
from genflow.models.latent import Gaussian
from genflow.models.posteriors import Posterior, couplings, reversing
from genflow.networks import made

PRIORS = ("normal", "coupling", "autoregressive", "mixture", "vamp")
NOISE = 0.1  # between pseudo-inputs that start at the same example, in units of half the data range


class Prior(NamedTuple):
    """p(z). `params` below are those of all the level: {'inference': {...}, 'generation': {'prior': ..., ...}}.

    init(key, x, z) -> what is to be params['generation']['prior']
    draw(params, key, num, temperature) -> z [num, D]; the temperature multiplies the noise, at 0 it is the mode, or the
        mean of the likeliest part
    log_prob(params, z) -> [B]
    uses_inference: whether it shares parameters with the posterior
    gaussian: the density itself, where it is a diagonal Gaussian without parameters
    """

    init: Callable[..., Params]
    draw: Callable[..., Array]
    log_prob: Callable[..., Float[Array, " B"]]
    uses_inference: bool = False
    gaussian: Gaussian | None = None


def normal_prior(latent_dims: int) -> Prior:
    """p(z) = N(z; 0, I)."""
    gaussian = Gaussian(jnp.zeros(()), jnp.zeros(()))

    def draw(params, key, num, temperature=1.0):
        return temperature * jax.random.normal(key, (num, latent_dims))

    return Prior(lambda key, x, z: {}, draw, lambda params, z: gaussian.log_prob(z), gaussian=gaussian)


def flow_prior(latent_dims: int, bijector: Bijector) -> Prior:
    """log p(z) = log N(f(z); 0, I) + log |det df/dz|: evidence takes f, samples take its inverse."""

    def draw(params, key, num, temperature=1.0):
        noise = temperature * jax.random.normal(key, (num, latent_dims))
        return bijector.inverse(params["generation"]["prior"], noise)[0]

    def log_prob(params, z):
        noise, log_det = bijector.forward(params["generation"]["prior"], z)
        return standard_normal_log_prob(noise) + log_det

    return Prior(lambda key, x, z: bijector.init(key, z)[0], draw, log_prob)


def mixture_prior(latent_dims: int, components: int) -> Prior:
    """p(z) = sum_k w_k N(z; mean_k, diag std_k^2) with learned weights, means and standard deviations."""

    def init(key, x, z):
        mean = jax.random.normal(key, (components, latent_dims))
        return {"logits": jnp.zeros(components), "mean": mean, "log_std": jnp.zeros((components, latent_dims))}

    def parts(params):
        prior = params["generation"]["prior"]
        gaussians = Gaussian(prior["mean"], soft_clip(prior["log_std"]))
        return jax.nn.log_softmax(prior["logits"]), gaussians

    return Prior(init, *_mixture(parts))


def vamp_prior(posterior: Posterior, components: int) -> Prior:
    """p(z) = 1/K sum_k q(z | u_k): a mixture of posteriors at K learned pseudo-inputs u_k.

    Pseudo-inputs start as training examples with a little noise, and are free beyond the range of the data.

    Reference: Tomczak and Welling (2018), VAE with a VampPrior, arXiv:1705.07120, equation 9.
    """

    def init(key, x, z):
        key_index, key_noise = jax.random.split(key)
        chosen = x[jax.random.randint(key_index, (components,), 0, len(x))]
        return {"inputs": chosen + NOISE * jax.random.normal(key_noise, chosen.shape, x.dtype)}

    def parts(params):
        gaussians = posterior.evidence(params["inference"], params["generation"]["prior"]["inputs"])
        return jnp.full(components, -jnp.log(components)), gaussians

    return Prior(init, *_mixture(parts), uses_inference=True)


def _mixture(parts: Callable):
    """(draw, log_prob) of parts(params) -> (log-weights [K], Gaussian [K, D])."""

    def draw(params, key, num, temperature=1.0):
        log_weights, gaussians = parts(params)
        key_part, key_noise = jax.random.split(key)
        gumbel = jax.random.gumbel(key_part, (num, len(log_weights)))
        chosen = jnp.argmax(log_weights + temperature * gumbel, axis=1)
        return Gaussian(gaussians.mean[chosen], gaussians.log_std[chosen]).draw(key_noise, temperature)

    # dimension by dimension: all of [B, K, D] at once takes 20 times as long on a CPU (K = 500, D = 128)
    @jax.checkpoint
    def add(total, column):
        z, mean, log_std = column
        return total + normal_log_prob(z[:, None], mean, log_std), None

    def log_prob(params, z):
        log_weights, gaussians = parts(params)
        start = jnp.broadcast_to(log_weights, (len(z), len(log_weights)))
        total, _ = jax.lax.scan(add, start, (z.T, gaussians.mean.T, gaussians.log_std.T))
        return jax.nn.logsumexp(total, axis=1)

    return draw, log_prob


def prior(
    name: str, posterior: Posterior, latent_dims: int, depth: int, widths: tuple[int, ...], components: int
) -> Prior:
    """The priors by name: 'normal', 'coupling', 'autoregressive', 'mixture' or 'vamp'.

    Args:
      depth, widths: layers of the flow, and hidden units of each layer's network.
      components: Gaussians of a mixture; of 'vamp', pseudo-inputs.

    Raises:
      ValueError: an unknown name; a flow of fewer dimensions than it needs; a Vamp prior whose posterior is a flow.
    """
    if name not in PRIORS:
        raise ValueError(f"prior={name!r}: expected one of {', '.join(PRIORS)}")
    if name == "normal":
        return normal_prior(latent_dims)
    if name in ("mixture", "vamp"):
        return _mixture_by_name(name, posterior, latent_dims, components)
    if latent_dims < 2 or depth < 1:
        raise ValueError(f"prior={name!r} needs latent_dims={latent_dims} above one and prior_depth={depth} above zero")
    if name == "coupling":
        return flow_prior(latent_dims, couplings(depth, widths))
    layer = bj.masked_autoregressive(bj.gaussian(), made(widths))
    return flow_prior(latent_dims, reversing(layer, depth))


def _mixture_by_name(name, posterior, latent_dims, components):
    if components < 1:
        raise ValueError(f"components={components} must be above zero")
    if name == "mixture":
        return mixture_prior(latent_dims, components)
    if posterior.log_prob is None:
        raise ValueError("prior='vamp' needs the density of q at any z, which no flow has here: posterior='gaussian'")
    return vamp_prior(posterior, components)
