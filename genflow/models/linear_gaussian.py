"""Linear decoder, Gaussian noise: the latent variable model whose evidence and posterior are known in closed form."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Model, Params, Spec
from genflow.distributions import soft_clip
from genflow.models.latent import Gaussian, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.observation import gaussian

MIN_LOG_STD = -5.0  # of the noise
LOG_2PI = math.log(2 * math.pi)


def linear_gaussian(spec: Spec, latent_dims: int = 2) -> Model:
    """p(z) = N(0, I), p(x | z) = N(W z + b, sigma^2 I), q(z | x) = N(A x + c, diag(s^2)); W, b, sigma, A, c, s learned.

    Its maximum likelihood is probabilistic principal component analysis, where the ELBO of continuous data is tight:
    the columns of W may be turned until the posterior's covariance is diagonal. Of integers, x is uniformly dequantized
    (`gaussian`), and the ELBO is not tight: q sees the integer, the posterior depends on the noise that is added to it.

    Raises:
      ValueError: no latent dimension.

    Reference: Tipping and Bishop (1999), Probabilistic principal component analysis, Journal of the Royal Statistical
      Society B 61; Lucas et al. (2019), Don't blame the ELBO!, arXiv:1911.02469, for the ELBO of the linear model.
    """
    if latent_dims < 1:
        raise ValueError(f"latent_dims={latent_dims} must be above zero")
    return latent_variable(spec, _level(spec, latent_dims), gaussian(spec, MIN_LOG_STD), Objective())


def _level(spec, latent_dims):
    prior = Gaussian(jnp.zeros(()), jnp.zeros(()))

    def init(key, x):
        key_encoder, key_decoder = jax.random.split(key)
        dims, zeros = spec.dims, jnp.zeros(latent_dims)
        a = jax.random.normal(key_encoder, (dims, latent_dims)) / math.sqrt(dims)
        w = jax.random.normal(key_decoder, (latent_dims, dims)) / math.sqrt(latent_dims)
        return {
            "inference": {"kernel": a, "bias": zeros, "log_std": zeros},
            "generation": {"kernel": w, "bias": x.reshape(x.shape[0], -1).mean(0), "log_std": jnp.zeros(())},
        }

    def evidence(params, x):
        q = params["inference"]
        mean = x.reshape(x.shape[0], -1) @ q["kernel"] + q["bias"]
        return Gaussian(mean, jnp.broadcast_to(soft_clip(q["log_std"]), mean.shape))

    def decoded(params, z):
        p = params["generation"]
        mean = (z @ p["kernel"] + p["bias"]).reshape(z.shape[0], *spec.shape)
        return jnp.stack([mean, jnp.broadcast_to(p["log_std"], mean.shape)], -1)

    def infer(params, key, e, from_posterior, temperature):
        drawn = draw_level(key, prior, e, from_posterior[0], temperature[0])
        return Walk(drawn.z, decoded(params, drawn.z), *(term[None] for term in drawn[1:]))

    def joint(params, z):
        return decoded(params, z), prior.log_prob(z)[None]

    def generate(params, key, num, temperature):
        z = temperature[0] * jax.random.normal(key, (num, latent_dims))
        return z, decoded(params, z)

    return Hierarchy(1, init, evidence, infer, joint, generate, lambda params, e, z: e.log_prob(z)[None])


def log_evidence(params: Params, x: Float[Array, "B D"]) -> Float[Array, " B"]:
    """log N(x; b, W W^T + sigma^2 I) of continuous data, nats.

    By the posterior at its mean m: log p(x) = log p(x | m) + log p(m) - log p(m | x), which inverts the small matrix
    of the latents, and not the large one of the data.
    """
    weight, bias, log_std = _generation(params)
    mean, covariance = posterior(params, x)
    log_likelihood = _log_normal((x - bias - mean @ weight) * jnp.exp(-log_std)) - x.shape[1] * log_std
    log_posterior = -0.5 * (weight.shape[0] * LOG_2PI + jnp.linalg.slogdet(covariance)[1])
    return log_likelihood + _log_normal(mean) - log_posterior


def posterior(params: Params, x: Float[Array, "B D"]) -> tuple[Float[Array, "B K"], Float[Array, "K K"]]:
    """Mean and covariance of p(z | x) = N(W^T (x - b) / sigma^2 S, S), S = (I + W^T W / sigma^2)^-1.

    Reference: Tipping and Bishop (1999), equation 6, whose M is sigma^2 S^-1.
    """
    weight, bias, log_std = _generation(params)
    precision = jnp.eye(weight.shape[0]) + weight @ weight.T * jnp.exp(-2 * log_std)
    covariance = jnp.linalg.inv(precision)
    return (x - bias) @ weight.T @ covariance * jnp.exp(-2 * log_std), covariance


def posterior_kl(params: Params, x: Float[Array, "B D"]) -> Float[Array, " B"]:
    """KL(q(z | x) || p(z | x)), nats: what the ELBO lacks of log p(x)."""
    q = params["model"]["levels"]["inference"]
    log_std = soft_clip(q["log_std"])
    mean, covariance = posterior(params, x)
    precision, shift = jnp.linalg.inv(covariance), x @ q["kernel"] + q["bias"] - mean
    traces = (jnp.diag(precision) * jnp.exp(2 * log_std)).sum() - len(log_std)
    log_dets = jnp.linalg.slogdet(covariance)[1] - 2 * log_std.sum()
    return 0.5 * (traces + log_dets + ((shift @ precision) * shift).sum(1))


def _generation(params):
    p = params["model"]["levels"]["generation"]
    return p["kernel"], p["bias"], MIN_LOG_STD + jax.nn.softplus(p["log_std"] - MIN_LOG_STD)


def _log_normal(x):
    return -0.5 * ((x**2).sum(1) + x.shape[1] * LOG_2PI)
