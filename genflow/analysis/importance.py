"""Importance weights of a model's samples against an unnormalized density: how good they are, and what they give.

With x ~ q and w = p(x) / q(x) for an unnormalized p: E_q[w] = Z, and E_q[w f(x)] / E_q[w] is the mean of f under p / Z.
All of it is numpy in float64 on logarithms of weights, whose spread is thousands of nats before training.

What a model never samples, its own weights cannot show: a flow that lost a mode may have a perfect effective sample
size and a normalizer that is too small. Compare with samples of the target where there are any.
"""

import math

import jax
import numpy as np
from jaxtyping import Float

from genflow.core import Key, Model, Params
from genflow.hosts import to_host

NUM_WEIGHTS = 10_000
TAIL = 0.2  # largest part of the weights that counts as their tail

LogWeights = Float[np.ndarray, " N"]


def weighted_samples(
    model: Model, params: Params, state, key: Key, num: int = NUM_WEIGHTS
) -> tuple[Float[np.ndarray, "num *event"], LogWeights]:
    """Draws of a model and their log-weights log p(x) - log q(x), nats, against the model's own target.

    Raises:
      ValueError: the model has no target, or no sample_log_prob.
    """
    if model.target is None or model.sample_log_prob is None:
        raise ValueError("needs a model with `target` and `sample_log_prob`, such as boltzmann")

    @jax.jit
    def draw(params, state, key):
        x, log_q = model.sample_log_prob(params, state, key, num)
        return x, model.target.log_density(x) - log_q

    x, log_weights = draw(params, state, key)
    return to_host(x), to_host(log_weights).astype(np.float64)


def effective_sample_size(log_weights: LogWeights) -> float:
    """(sum w)^2 / sum w^2, between 1 and N; the relative one is this over N.

    Reference: Kong et al. (1994), Sequential imputations and Bayesian missing data problems, JASA 89.
    """
    return math.exp(2 * np.logaddexp.reduce(log_weights) - np.logaddexp.reduce(2 * log_weights))


def log_normalizer(log_weights: LogWeights) -> tuple[float, float]:
    """Log of the mean weight, an estimate of log Z that is too low on average, and its standard error, nats.

    The error is that of the mean weight over the mean weight (delta method); below an effective sample size of some
    hundreds it is itself a guess.
    """
    num = len(log_weights)
    variance = (num / effective_sample_size(log_weights) - 1) / (num - 1)
    return float(np.logaddexp.reduce(log_weights) - math.log(num)), math.sqrt(max(variance, 0.0))


def reweight(log_weights: LogWeights, values: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Self-normalized mean of f under the target, sum w f / sum w, and its standard error.

    Reference: Owen (2013), Monte Carlo theory, methods and examples, chapter 9.
    """
    share = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    mean = float(share @ values)
    return mean, float(np.sqrt((share**2) @ (values - mean) ** 2))


def log_ratio(log_weights: LogWeights, inside: np.ndarray) -> tuple[float, float]:
    """Log of P(inside) / P(outside) under the target and its standard error: minus a free-energy difference in kT."""
    share, error = reweight(log_weights, np.asarray(inside, np.float64))
    return math.log(share / (1 - share)), error / (share * (1 - share))


def pareto_k(log_weights: LogWeights) -> float:
    """Shape of a generalized Pareto distribution fitted to the largest weights; above 0.7 estimates are unreliable.

    NaN below 25 weights.

    Reference: Vehtari et al. (2024), Pareto smoothed importance sampling, arXiv:1507.02646; the fit is that of Zhang
      and Stephens (2009), Technometrics 51, section 2.
    """
    num = len(log_weights)
    count = int(min(TAIL * num, 3 * math.sqrt(num)))
    if count < 5:
        return math.nan
    ordered = np.sort(np.exp(log_weights - log_weights.max()))
    excess = ordered[-count:] - ordered[-count - 1]
    grid = 30 + int(math.sqrt(count))
    theta = 1 / excess[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * excess[count // 4])
    k = np.log1p(-theta[:, None] * excess).mean(1)
    log_likelihood = count * (np.log(-theta / k) - k - 1)
    weights = np.exp(log_likelihood - np.logaddexp.reduce(log_likelihood))
    return float(np.log1p(-(weights @ theta) * excess).mean())


def diagnostics(
    model: Model, params: Params, state, key: Key, num: int = NUM_WEIGHTS
) -> dict[str, tuple[float, float]]:
    """Named figures of a run with their standard errors (0: not an estimate of a mean); {} without a target."""
    if model.target is None:
        return {}
    _, log_weights = weighted_samples(model, params, state, key, num)
    log_weights = np.where(np.isnan(log_weights), -np.inf, log_weights)  # diverged draws weigh nothing
    if not np.isfinite(log_weights).any():
        return dict.fromkeys(("effective sample size / draws", "Pareto k of the weights", "log Z"), (math.nan, 0.0))
    figures = {
        "effective sample size / draws": (effective_sample_size(log_weights) / num, 0.0),
        "Pareto k of the weights": (pareto_k(log_weights), 0.0),
        "log Z": log_normalizer(log_weights),
    }
    known = model.target.log_normalizer
    return figures if known is None else figures | {"log Z, exact": (known, 0.0)}
