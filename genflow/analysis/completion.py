"""Completion, inpainting, prompts: an autoregressive model given any part of an example, and the score of a part.

The model draws in its own order. What is given before a site conditions it; what is given after it does not, and enters
as a weight: with x_u drawn site by site and x_k given, w = prod_(i in k) p(x_i | x_1 .. x_(i-1)) has E[w] = p(x_k), and
draws weighted by w follow p(x_u | x_k). Where all that is given comes first, every weight is p(x_k) itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from genflow.core import Key, Model, Params
from genflow.hosts import to_host
from genflow.models.autoregressive import whole_sites


class Inpainting(NamedTuple):
    """Completed examples, and what their candidates' weights say."""

    x: Float[np.ndarray, "B *event"]
    log_prob_known: Float[np.ndarray, " B"]  # log of the mean weight, nats: an estimate of log p(x_k), low on average
    effective_samples: Float[np.ndarray, " B"]  # between 1 and the number of candidates


def inpaint(
    model: Model,
    params: Params,
    state,
    key: Key,
    x: Shaped[Array, "B *event"],
    known: Bool[Array, "*event"],
    num_candidates: int = 64,
    cond=None,
) -> Inpainting:
    """Draws the rest of each example given its known part, wherever that is: the best of `num_candidates` by weight.

    One candidate of each example is chosen with probability in proportion to its weight (sampling importance
    resampling), which is exact where what is given comes first, and better the more candidates there are elsewhere.

    Raises:
      ValueError: the model is not autoregressive.

    Reference: Rubin (1988), Using the SIR algorithm to simulate posterior distributions, Bayesian Statistics 3;
    Fung and Chang (1990), Weighing and integrating evidence for stochastic simulation (likelihood weighting).
    """
    _check(model)

    @jax.jit
    def candidate(params, state, key):
        completed = model.complete(params, state, key, x, known, cond)
        return completed, log_prob_of_part(model, params, state, completed, known, cond)

    key, key_choice = jax.random.split(key)
    draws = [candidate(params, state, jax.random.fold_in(key, i)) for i in range(num_candidates)]
    completed, log_weights = (np.stack([to_host(draw[i]) for draw in draws]) for i in range(2))
    log_weights = log_weights.astype(np.float64)
    chosen = np.asarray(jax.random.categorical(key_choice, jnp.asarray(log_weights), axis=0))
    total = np.logaddexp.reduce(log_weights, axis=0)
    effective = np.exp(2 * total - np.logaddexp.reduce(2 * log_weights, axis=0))
    return Inpainting(completed[chosen, np.arange(len(chosen))], total - np.log(num_candidates), effective)


def log_prob_of_part(
    model: Model, params: Params, state, x: Shaped[Array, "B *event"], part: Bool[Array, "*event"], cond=None
) -> Float[Array, " B"]:
    """Sum over the part's sites of log p(x_i | x_1 .. x_(i-1)), nats.

    For a part at the end it is log p(part | the rest); for one at the beginning, log p(part).

    Raises:
      ValueError: the model is not autoregressive, or the part divides a site.
    """
    _check(model)
    terms = model.site_log_prob(params, state, None, {"x": x, **(cond or {})})
    return jnp.where(whole_sites(model.sites, part, x.shape), terms, 0.0).sum(1)


def can_complete(model: Model, known: Bool[Array, "*event"], shape: tuple[int, ...]) -> bool:
    """True where `complete` takes what is known into account, all of it.

    That is where an autoregressive model's order puts it before all that is not known, and of a diffusion model, which
    has no order, everywhere.
    """
    if model.complete is None or model.sites is None:
        return model.complete is not None and model.diffusion is not None
    marked = np.asarray(whole_sites(model.sites, known, (1, *shape)))[0]
    return bool((marked[:-1] >= marked[1:]).all())


def _check(model):
    if model.complete is None or model.site_log_prob is None:
        raise ValueError("needs an autoregressive model with `complete` and `site_log_prob`, such as gated_pixelcnn")
