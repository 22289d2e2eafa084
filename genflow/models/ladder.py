"""Ladder variational autoencoders: inference from the top down, corrected by what a deterministic pass has seen."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec
from genflow.models.chain import Chain, as_gaussian, chain, check_sizes
from genflow.models.latent import Gaussian, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.observation import observation
from genflow.networks import activation_by_name, heads, hidden_layers


def ladder(
    spec: Spec,
    latents: tuple[int, ...] = (64, 32, 16, 8, 4),
    widths: tuple[tuple[int, ...], ...] = ((512, 512), (256, 256), (128, 128), (64, 64), (32, 32)),
    activation: str = "leaky_relu",
    normalize: bool = True,
    likelihood: str = "auto",
    min_log_scale: float = -5.0,
    std: float = 0.0,
    beta: float = 1.0,
    free_nats: float = 0.0,
    kl_warmup: int = 0,
    samples: int = 1,
) -> Model:
    """q(z_l | z_(l-1), x) ~ p(z_l | z_(l-1)) N(z_l; mean(d_l), std(d_l)^2), with d_L, ..., d_1 computed from x in turn.

    Args:
      latents: sizes of the levels, nearest to the data first.
      widths: of the hidden layers between each level and what is below it; generation has them in the other order.
      normalize: layer normalization before every activation.
      likelihood, min_log_scale, std: see `observation`.
      beta, free_nats, kl_warmup, samples: see `Objective`.

    Raises:
      ValueError: sizes, a likelihood that does not fit the data, or terms of the objective that exclude each other.

    Reference: Sønderby et al. (2016), Ladder variational autoencoders, arXiv:1602.02282, section 2.2 (with batch
    normalization).
    """
    check_sizes(latents, widths)
    seen = observation(spec, likelihood, min_log_scale, std)
    down = chain(seen, latents, widths, activation_by_name(activation), normalize)
    hierarchy = merging(down, latents, widths, activation, normalize)
    return latent_variable(spec, hierarchy, seen, Objective(beta, free_nats, kl_warmup, samples))


def merge(one: Gaussian, other: Gaussian) -> Gaussian:
    """The normalized product of two Gaussian densities: precisions add, and weigh the means.

    >>> one, other = Gaussian(jnp.zeros(1), jnp.zeros(1)), Gaussian(jnp.ones(1), jnp.zeros(1))
    >>> float(merge(one, other).mean[0])
    0.5
    """
    share = jax.nn.sigmoid(2 * (other.log_std - one.log_std))
    log_std = -0.5 * jnp.logaddexp(-2 * one.log_std, -2 * other.log_std)
    return Gaussian(share * one.mean + (1 - share) * other.mean, log_std)


def merging(
    down: Chain, latents: tuple[int, ...], widths: tuple[tuple[int, ...], ...], activation: str, normalize: bool
) -> Hierarchy:
    """q infers level 1 from the data, and every further level from the merged opinions of the data and of p."""
    num = len(latents)
    hidden = [hidden_layers(w, activation_by_name(activation), normalize) for w in widths]
    last = [heads(d, 2) for d in latents]
    names = [f"level_{num - i}" for i in range(num)]

    def init(key, x):
        keys, inference, h = jax.random.split(key, 2 * num + 1), {}, x
        for i, name in enumerate(names):
            layers = hidden[i].init(keys[2 * i], h)
            h = hidden[i].apply(layers, h)
            inference[name] = {"hidden": layers, "heads": last[i].init(keys[2 * i + 1], h)}
        return {"inference": inference, "generation": down.init(keys[-1], x)}

    def evidence(params, x):
        estimates, h = [], x
        for i, name in enumerate(names):
            h = hidden[i].apply(params["inference"][name]["hidden"], h)
            estimates.append(as_gaussian(last[i].apply(params["inference"][name]["heads"], h)))
        return tuple(estimates[::-1])

    def infer(params, key, e, from_posterior, temperature):
        drawn, above = [], e[0].mean
        for i, key_level in enumerate(jax.random.split(key, num)):
            prior = down.prior(params["generation"], i, above)
            posterior = merge(e[i], prior) if i else e[0]
            drawn.append(draw_level(key_level, prior, posterior, from_posterior[i], temperature[i]))
            above = drawn[-1].z
        z, *terms = zip(*drawn, strict=True)
        return Walk(z, down.decode(params["generation"], above), *map(jnp.stack, terms))

    def joint(params, z):
        return down.joint(params["generation"], z)

    def generate(params, *arguments):
        return down.generate(params["generation"], *arguments)

    return Hierarchy(num, init, evidence, infer, joint, generate)
