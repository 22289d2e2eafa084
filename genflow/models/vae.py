"""Variational autoencoders with one level of latents."""

import math

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec
from genflow.models.causal_decoder import causal_decoder
from genflow.models.latent import Drawn, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.observation import Observation, observation
from genflow.models.posteriors import Posterior
from genflow.models.posteriors import posterior as posterior_by_name
from genflow.models.priors import Prior
from genflow.models.priors import prior as prior_by_name
from genflow.networks import activation_by_name, mlp


def vae(
    spec: Spec,
    latent_dims: int = 16,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "silu",
    posterior: str = "gaussian",
    posterior_depth: int = 4,
    context_dims: int = 32,
    prior: str = "normal",
    prior_depth: int = 4,
    components: int = 10,
    flow_widths: tuple[int, ...] = (64,),
    likelihood: str = "auto",
    causal_width: int = 16,
    causal_blocks: int = 3,
    min_log_scale: float = -5.0,
    std: float = 0.0,
    beta: float = 1.0,
    free_nats: float = 0.0,
    kl_warmup: int = 0,
    samples: int = 1,
    gradient: str = "reparameterized",
) -> Model:
    """ELBO = E_q[log p(x | z) + log p(z) - log q(z | x)], with the KL in closed form where both are Gaussian.

    Args:
      widths: of the encoder's hidden layers; the decoder has them in the other order.
      posterior: 'gaussian', 'planar', 'iaf' or 'coupling', a flow of `posterior_depth` layers, to which the encoder
        tells `context_dims` numbers.
      prior: 'normal', 'coupling' or 'autoregressive', a flow of `prior_depth` layers, 'mixture' or 'vamp', which have
        `components`.
      flow_widths: hidden units of each layer of the flows.
      likelihood: 'autoregressive', a Gated PixelCNN of `causal_width` features and `causal_blocks` blocks that the
        decoder tells `context_dims` numbers; or one of `observation`, to which min_log_scale and std belong.
      beta, free_nats, kl_warmup, samples, gradient: see `Objective`.

    Raises:
      ValueError: sizes, a likelihood that does not fit the data, or terms of the objective that exclude each other.

    Reference: Kingma and Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114, equation 10.
    """
    if min((latent_dims, *widths, *flow_widths, context_dims)) < 1:
        sizes = f"latent_dims={latent_dims}, widths={widths}, flow_widths={flow_widths}, context_dims={context_dims}"
        raise ValueError(f"{sizes} must be above zero")
    if likelihood == "autoregressive":
        seen = causal_decoder(spec, context_dims, causal_width, causal_blocks)
    else:
        seen = observation(spec, likelihood, min_log_scale, std)
    encoder = mlp(widths, activation_by_name(activation))
    q = posterior_by_name(posterior, encoder, latent_dims, posterior_depth, flow_widths, context_dims)
    p = prior_by_name(prior, q, latent_dims, prior_depth, flow_widths, components)
    hierarchy = one_level(seen, latent_dims, widths, activation, q, p)
    return latent_variable(spec, hierarchy, seen, Objective(beta, free_nats, kl_warmup, samples, gradient))


def one_level(
    seen: Observation, latent_dims: int, widths: tuple[int, ...], activation: str, posterior: Posterior, prior: Prior
) -> Hierarchy:
    """z ~ p(z), h = decoder(z), a perceptron, and a draw of q(z | x)."""
    decoder = mlp(widths[::-1], activation_by_name(activation))(math.prod(seen.shape))

    def init(key, x):
        key_encoder, key_decoder = jax.random.split(key)
        z = jnp.zeros((x.shape[0], latent_dims), x.dtype)
        generation = {"decoder": decoder.init(key_decoder, z)}
        generation["prior"] = prior.init(jax.random.fold_in(key_decoder, 1), x, z)
        return {"inference": posterior.init(key_encoder, x), "generation": generation}

    def evidence(params, x):
        return posterior.evidence(params["inference"], x)

    def decoded(params, z):
        return decoder.apply(params["generation"]["decoder"], z).reshape(z.shape[0], *seen.shape)

    def infer(params, key, e, from_posterior, temperature):
        drawn = _draw(posterior, prior, params, key, e, from_posterior[0], temperature[0])
        levels = (jnp.stack([term]) for term in drawn[1:])
        return Walk(drawn.z, decoded(params, drawn.z), *levels)

    def joint(params, z):
        return decoded(params, z), prior.log_prob(params, z)[None]

    def generate(params, key, num, temperature):
        z = prior.draw(params, key, num, temperature[0])
        return z, decoded(params, z)

    def log_posterior(params, e, z):
        return posterior.log_prob(e, z)[None]

    is_own = posterior.log_prob is not None and not prior.uses_inference
    return Hierarchy(1, init, evidence, infer, joint, generate, log_posterior if is_own else None)


def _draw(posterior, prior, params, key, e, from_posterior, temperature) -> Drawn:
    """As `draw_level`, of any posterior and prior.

    Of a draw of the prior, log q is left at the prior's own density where that of q takes the inverse of a flow.
    """
    if posterior.log_prob is not None and prior.gaussian is not None:
        return draw_level(key, prior.gaussian, e, from_posterior, temperature)

    def of_posterior():
        return posterior.draw(params["inference"], key, e, temperature)

    def of_prior():
        num = len(jax.tree.leaves(e)[0])
        z = jax.lax.stop_gradient(prior.draw(params, key, num, temperature))
        return z, prior.log_prob(params, z) if posterior.log_prob is None else posterior.log_prob(e, z)

    # one of the two is computed: to draw from an autoregressive prior takes a step for each dimension
    z, log_posterior = jax.lax.cond(from_posterior, of_posterior, of_prior)
    log_prior = prior.log_prob(params, z)
    return Drawn(z, log_prior, log_posterior, log_posterior - log_prior)
