"""Annealed importance sampling: ratios of normalizers along a path of distributions, walked either way."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from genflow.core import Key


class Walk(NamedTuple):
    """Where chains ended, and the logarithms of their weights, nats: exp(log_weights) has the mean Z_last / Z_first."""

    x: PyTree
    log_weights: Float[Array, " C"]


def annealed_walk(
    log_densities: Callable[[PyTree, Array, Array], tuple[Float[Array, " C"], Float[Array, " C"]]],
    transition: Callable[[Key, PyTree, Array], PyTree],
    key: Key,
    x: PyTree,
    betas: Float[Array, " T"],
) -> Walk:
    """Walks chains x, drawn at betas[0], to betas[-1], one transition at each temperature on the way.

    Args:
      log_densities: (x, beta, next beta) -> the unnormalized log-densities of x at both.
      transition: leaves the distribution at beta invariant.
      betas: 0 .. 1 from what can be drawn to what is wanted; back from exact draws of the latter, the walk estimates
        the inverse ratio. By Jensen's inequality log-mean-exp is low on average in both: forward too low a Z, and so
        too high a likelihood; backward the other way.

    Reference: Neal (2001), Annealed importance sampling, Statistics and Computing 11; Burda et al. (2015), Accurate and
      conservative estimates of MRF log-likelihood using reverse annealing, arXiv:1412.8566.
    """

    def one(carry, inputs):
        x, log_weights = carry
        i, beta, after = inputs
        here, there = log_densities(x, beta, after)
        return (transition(jax.random.fold_in(key, i), x, after), log_weights + there - here), None

    num = jax.tree.leaves(x)[0].shape[0]
    steps = (jnp.arange(len(betas) - 1), betas[:-1], betas[1:])
    (x, log_weights), _ = jax.lax.scan(one, (x, jnp.zeros(num)), steps)
    return Walk(x, log_weights)


def log_mean_weight(log_weights: Float[Array, " C"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Log of the mean weight, and its standard error to first order: std(w) / (sqrt(C) mean(w)).

    >>> [float(v) for v in log_mean_weight(jnp.zeros(4))]
    [0.0, 0.0]
    """
    num = len(log_weights)
    value = jax.nn.logsumexp(log_weights) - jnp.log(num)
    return value, jnp.exp(log_weights - value).std(ddof=1) / jnp.sqrt(num)


def dense_at_the_end(num_steps: int) -> Float[np.ndarray, " T"]:
    """0 .. 1 in about `num_steps` steps: 3.4 % of them up to 0.5, 27.6 % up to 0.9, 69 % up to 1.

    Reference: Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks, section 6: 500,
      4,000 and 10,000 of 14,500.
    """
    parts = ((0.0, 0.5, 500), (0.5, 0.9, 4_000), (0.9, 1.0, 10_000))
    counts = [max(round(num_steps * share / 14_500), 1) for *_, share in parts]
    pieces = [np.linspace(a, b, n, endpoint=False) for (a, b, _), n in zip(parts, counts, strict=True)]
    return np.concatenate([*pieces, [1.0]])
