"""The two directions of KL between a flow and a two-dimensional target, and both spaces in which they can be seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.analysis.importance import effective_sample_size, log_normalizer, reweight, weighted_samples
from genflow.core import Key, Model, Params


class Directions(NamedTuple):
    """What the picture of one trained flow q, with target p / Z, shows."""

    forward_kl: float  # KL(p / Z || q), nats, on draws of the target
    reverse_kl: float  # KL(q || p / Z), nats, on draws of the flow
    relative_ess: float
    log_normalizer: tuple[float, float]  # estimate and standard error, nats
    means: tuple[float, float, float]  # of the first coordinate of the target's draws, the flow's, and re-weighted
    mean_error: float  # standard error of the last
    latents: Float[np.ndarray, "N 2"]  # f(x) for x of the target
    log_density: Float[np.ndarray, " M"]  # log q on a grid


def log_likelihood_ratios(
    model: Model, params: Params, state, x: Float[Array, "N dims"], log_p: Float[Array, " N"]
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """log p(x) - log q(x), and in latent space log p_z(z) - log N(z; 0, I) at z = f(x); they are the same numbers.

    p_z is the target carried through the flow, log p_z(z) = log p(x) + log |det dg/dz|, with the Jacobian of g taken
    by automatic differentiation of `decode`. So forward KL in x is reverse KL in z.

    Reference: Papamakarios et al. (2021), Normalizing flows for probabilistic modeling and inference,
      arXiv:1912.02762, section 2.3.3.
    """
    z = model.encode(params, state, None, {"x": x})
    jacobian = jax.vmap(jax.jacrev(lambda z: model.decode(params, state, z[None])[0]))(z)
    log_p_z = log_p + jnp.linalg.slogdet(jacobian)[1]
    log_base = -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * np.log(2 * np.pi)
    return log_p - model.log_prob(params, state, None, {"x": x}), log_p_z - log_base


def compare(model: Model, params: Params, state, key: Key, x: np.ndarray, grid: np.ndarray) -> Directions:
    """Measures one flow against its target.

    Args:
      x: draws of the target.
      grid: points at which the density is wanted.

    Raises:
      ValueError: the normalizer of the target is not known.
    """
    target = model.target
    if target is None or target.log_normalizer is None:
        raise ValueError("needs a model with a target whose normalizer is known")
    log_q = jax.jit(lambda x: model.log_prob(params, state, None, {"x": x}))
    log_p = target.log_density(x) - target.log_normalizer
    drawn, log_weights = weighted_samples(model, params, state, key)
    mean, error = reweight(log_weights, drawn[:, 0])
    return Directions(
        float(np.mean(log_p - log_q(x))),
        float(target.log_normalizer - log_weights.mean()),
        effective_sample_size(log_weights) / len(log_weights),
        log_normalizer(log_weights),
        (float(x[:, 0].mean()), float(drawn[:, 0].mean()), mean),
        error,
        np.asarray(model.encode(params, state, None, {"x": x})),
        np.asarray(log_q(grid)),
    )
