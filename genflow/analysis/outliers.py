"""Outlier detection with a trained density: likelihood, typicality, and the likelihood ratio of a hierarchical VAE.

A score is high for outliers. What of a latent hierarchy says how typical an example is lies in its upper levels, while
details that any image has in common dominate the likelihood: LLR>k subtracts what is explained without q's draws of the
k levels nearest to the data.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Key, Model, Params
from genflow.evaluate import Place, batches, log_probs
from genflow.hosts import to_host

Scores = dict[str, Float[np.ndarray, " N"]]
CHUNK = 2**22  # resampled examples that are in memory at once


def lower_bound(model: Model) -> Callable[..., Float[Array, " B"]]:
    """L>k = log p(x, z_>k, z_<=k = mode of p) - log q(z_>k | x), as (params, state, key, batch, k) -> [B] nats.

    One draw; z_1 .. z_k are the levels nearest to the data, each the mode of its conditional prior, and only the levels
    above them are weighed. k = 0 is the model's log_prob. k may be traced.

    Reference: Havtorn et al. (2021), Hierarchical VAEs know what they don't know, arXiv:2102.08248, section 3.
    """
    num_levels = model.latent.num_levels

    def bound(params, state, key, batch, k):
        is_above = jnp.arange(num_levels) < num_levels - k
        drawn = model.latent.infer(params, state, key, batch, is_above, is_above.astype(jnp.float32))
        log_ratio = jnp.where(is_above[:, None], drawn.log_prior - drawn.log_posterior, 0.0)
        return drawn.log_likelihood + log_ratio.sum(0)

    return bound


def bounds_without(
    model: Model,
    params: Params,
    state,
    dataset,
    key: Key,
    batch_size: int,
    limit: int = 0,
    place: Place = lambda batch: batch,
    samples: int = 1,
) -> Float[np.ndarray, "L N"]:
    """L>k of every example for k = 1 .. L, nats, under the noise that `evaluate.log_probs` has for the same key.

    Args:
      samples: draws in the log-mean-exp of each.
    """
    bound = lower_bound(model)

    @jax.jit
    def evaluate(params, state, key, batch, k):
        def add(i, total):
            return jnp.logaddexp(total, bound(params, state, jax.random.fold_in(key, i), batch, k))

        start = jnp.full(batch["x"].shape[0], -jnp.inf)
        return jax.lax.fori_loop(0, samples, add, start) - jnp.log(samples)

    rows = []
    for i, (batch, count) in enumerate(batches(dataset, batch_size, limit)):
        placed, key_batch = place(batch), jax.random.fold_in(key, i)
        each = [evaluate(params, state, key_batch, placed, k) for k in range(1, model.latent.num_levels + 1)]
        rows.append(np.stack([to_host(values).astype(np.float64)[:count] for values in each]))
    return np.concatenate(rows, axis=1)


def likelihood_scores(
    model: Model, *arguments, samples: int = 1, samples_above: int = 1, samples_per_call: int = 1, **options
) -> tuple[Float[np.ndarray, " N"], Scores]:
    """log p(x) (or its bound) of every example in nats, and the scores that need no other data: higher is stranger.

    Args:
      arguments, options: as of `evaluate.log_probs`.
      samples: draws in the log-mean-exp of L.
      samples_above: of L>k.
    """
    many = {"importance_samples": samples, "samples_per_call": samples_per_call}
    log_prob = log_probs(model, *arguments, **options, **many)
    scores = {"likelihood": -log_prob}
    if model.latent is not None:
        above = bounds_without(model, *arguments, **options, samples=samples_above)
        scores |= {f"L>{k}": -values for k, values in enumerate(above, 1)}
        scores |= {f"LLR>{k}": log_prob - values for k, values in enumerate(above, 1)}
    return log_prob, scores


def typicality(log_prob: Float[np.ndarray, " N"], known: Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
    """|NLL(x) - mean NLL of data that are known to be inliers|, nats: one example at a time.

    Reference: Nalisnick et al. (2019), Detecting out-of-distribution inputs to deep generative models using typicality,
    arXiv:1906.02994, with a set of one example.
    """
    return np.abs(log_prob - np.mean(known))


class Figure(NamedTuple):
    """A figure of merit with its percentile interval."""

    value: float
    low: float
    high: float


def detection(
    inliers: Float[np.ndarray, " N"],
    outliers: Float[np.ndarray, " M"],
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Figure]:
    """AUROC, AUPRC (average precision) and FPR80 of a score, with bootstrap intervals over both sets.

    Outliers are the positives. FPR80 is the share of inliers above the highest threshold that at least 80 % of the
    outliers reach.

    Raises:
      ValueError: a score that is not finite, or an empty set.
    """
    for name, values in (("inliers", inliers), ("outliers", outliers)):
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"{(~np.isfinite(values)).sum()} of {len(values)} scores of the {name} are not finite")
    order = np.sort(np.unique(np.concatenate([inliers, outliers])))[::-1]
    sets = [np.searchsorted(-order, -values) for values in (inliers, outliers)]
    value = {name: v[0] for name, v in _figures(*(np.bincount(s, minlength=len(order))[None] for s in sets)).items()}
    size = max(1, CHUNK // (len(inliers) + len(outliers)))
    generator = np.random.default_rng(seed)
    parts = [
        _figures(*(_resampled(generator, s, min(size, num_resamples - done), len(order)) for s in sets))
        for done in range(0, num_resamples, size)
    ]
    quantiles = ((1 - level) / 2, (1 + level) / 2)
    return {
        name: Figure(float(v), *map(float, np.quantile(np.concatenate([part[name] for part in parts]), quantiles)))
        for name, v in value.items()
    }


def _resampled(generator, thresholds, num, num_thresholds):
    """How many of the examples, drawn again with replacement, have each score: [num, num_thresholds]."""
    draws = thresholds[generator.integers(len(thresholds), size=(num, len(thresholds)))]
    flat = draws + num_thresholds * np.arange(num)[:, None]
    return np.bincount(flat.ravel(), minlength=num * num_thresholds).reshape(num, num_thresholds)


def _figures(negative: np.ndarray, positive: np.ndarray) -> Mapping[str, np.ndarray]:
    """Of counts [R, T] at each score, the highest first; equal scores are passed at once, as in scikit-learn."""
    false, true = np.cumsum(negative, 1), np.cumsum(positive, 1)
    num_false, num_true = false[:, -1:], true[:, -1:]
    precision = true / np.maximum(false + true, 1)
    first = np.argmax(5 * true >= 4 * num_true, axis=1)
    return {
        "auroc": (negative * (true - positive / 2)).sum(1) / (num_false * num_true)[:, 0],
        "auprc": (precision * positive).sum(1) / num_true[:, 0],
        "fpr80": np.take_along_axis(false, first[:, None], 1)[:, 0] / num_false[:, 0],
    }


def roc(inliers: np.ndarray, outliers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1)."""
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([inliers, outliers]))[::-1]])
    return tuple(1 - np.searchsorted(np.sort(s), thresholds, side="left") / len(s) for s in (inliers, outliers))
