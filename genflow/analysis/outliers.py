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
from genflow.evaluate import Place, batches, fetch, log_probs
from genflow.hosts import to_host

Scores = dict[str, Float[np.ndarray, " N"]]
LOWER = {"mode": 0.0, "draw": 1.0}  # temperatures of the levels that p draws
DIFFERENCE = "delta log p(x|z)"
CHUNK = 2**22  # resampled examples that are in memory at once


class Above(NamedTuple):
    """What the levels above k explain of each example, nats."""

    score: Array  # L>k
    log_likelihood: Array  # log p(x | z)


def scores_above(model: Model, lower: str = "mode") -> Callable[..., Above]:
    """L>k = log p(x | z) + sum_{l>k} [log p(z_l | levels above) - log q(z_l | x, ...)] of one draw.

    As (params, state, key, batch, k) -> `Above`: z_l of q where l > k; the k levels nearest to the data are the mode of
    p(z_l | levels above). A score, not a bound: Jensen's inequality says nothing of a mode. It is a bound, on average,
    where the lower levels are drawn from p (lower='draw'). k = 0 is the model's log_prob. k may be traced.

    Raises:
      ValueError: another `lower`.

    Reference: Havtorn et al. (2021), Hierarchical VAEs know what they don't know, arXiv:2102.08248, section 3 (modes).
    """
    if lower not in LOWER:
        raise ValueError(f"lower={lower!r}: expected {' or '.join(LOWER)}")
    num_levels = model.latent.num_levels

    def score(params, state, key, batch, k):
        is_above = jnp.arange(num_levels) < num_levels - k
        drawn = model.latent.infer(params, state, key, batch, is_above, jnp.where(is_above, 1.0, LOWER[lower]))
        log_ratio = jnp.where(is_above[:, None], drawn.log_prior - drawn.log_posterior, 0.0)
        return Above(drawn.log_likelihood + log_ratio.sum(0), drawn.log_likelihood)

    return score


def levels_above(
    model: Model,
    params: Params,
    state,
    dataset,
    key: Key,
    batch_size: int,
    limit: int = 0,
    place: Place = fetch,
    samples: int = 1,
    lower: str = "mode",
) -> Above:
    """`scores_above` of every example for k = 0 .. L, [L + 1, N] nats, with one noise for all k.

    Where `samples` is 1 it is also that of `evaluate.log_probs` for the same key and one importance sample.

    Args:
      samples: draws in the log-mean-exp of each score, and in the mean of each log p(x | z).
    """
    score = scores_above(model, lower)

    @jax.jit
    def evaluate(params, state, key, batch, k):
        def add(i, total):
            drawn = score(params, state, jax.random.fold_in(key, i), batch, k)
            return Above(jnp.logaddexp(total.score, drawn.score), total.log_likelihood + drawn.log_likelihood)

        zeros = jnp.zeros(batch["x"].shape[0])
        total = jax.lax.fori_loop(0, samples, add, Above(zeros - jnp.inf, zeros))
        return Above(total.score - jnp.log(samples), total.log_likelihood / samples)

    rows = []
    for i, (batch, count) in enumerate(batches(dataset, batch_size, limit, place)):
        key_batch = jax.random.fold_in(key, i)
        each = [evaluate(params, state, key_batch, batch, k) for k in range(model.latent.num_levels + 1)]
        rows.append(
            [np.stack([to_host(a).astype(np.float64) for a in field])[:, :count] for field in zip(*each, strict=True)]
        )
    return Above(*(np.concatenate(field, axis=1) for field in zip(*rows, strict=True)))


def likelihood_scores(
    model: Model,
    *arguments,
    samples: int = 1,
    samples_above: int = 1,
    samples_per_call: int = 1,
    lower: str = "mode",
    **options,
) -> tuple[Float[np.ndarray, " N"], Scores]:
    """log p(x) (or its bound) of every example in nats, and the scores that need no other data: higher is stranger.

    Args:
      arguments, options: as of `evaluate.log_probs`.
      samples: draws in the log-mean-exp of L.
      samples_above: of L>k.
      lower: 'mode' or 'draw', see `scores_above`.
    """
    many = {"importance_samples": samples, "samples_per_call": samples_per_call}
    log_prob = log_probs(model, *arguments, **options, **many)
    scores = {"likelihood": -log_prob}
    if model.latent is not None:
        above = levels_above(model, *arguments, **options, samples=samples_above, lower=lower)
        with np.errstate(invalid="ignore"):  # what is impossible in two ways has no ratio: NaN, which `detection` tells
            scores |= {f"L>{k}": -values for k, values in enumerate(above.score[1:], 1)}
            scores |= {f"LLR>{k}": log_prob - values for k, values in enumerate(above.score[1:], 1)}
            whole, *parts = above.log_likelihood
            scores |= {f"{DIFFERENCE}>{k}": whole - values for k, values in enumerate(parts, 1)}
    return log_prob, scores


def typicality(log_prob: Float[np.ndarray, " N"], known: Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
    """|NLL(x) - mean NLL of data that are known to be inliers|, nats: one example at a time.

    Reference: Nalisnick et al. (2019), Detecting out-of-distribution inputs to deep generative models using typicality,
    arXiv:1906.02994, with a set of one example.
    """
    with np.errstate(invalid="ignore"):
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
      ValueError: a score that is NaN (infinities have a rank), or an empty set.
    """
    for name, values in (("inliers", inliers), ("outliers", outliers)):
        if not len(values) or np.isnan(values).any():
            raise ValueError(f"{np.isnan(values).sum()} of {len(values)} scores of the {name} are NaN")
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
    thresholds = np.unique(np.concatenate([inliers, outliers]))[::-1]
    shares = (1 - np.searchsorted(np.sort(s), thresholds, side="left") / len(s) for s in (inliers, outliers))
    return tuple(np.concatenate([[0.0], share]) for share in shares)
