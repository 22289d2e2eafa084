"""Whether a classifier's probabilities are frequencies: accuracy, proper scores, calibration errors.

Logits [N, K] and labels [N] in, float64 figures out; no model is asked.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genflow.analysis.outliers import Figure

BINS = 15
CHUNK = 2**22  # simulated answers that are in memory at once
TEMPERATURES = (0.1, 10.0)  # where all answers are right there is no best one


class Reliability(NamedTuple):
    """Predictions in bins of their confidence, max p(y | x); a mean over no prediction is NaN."""

    edges: Float[np.ndarray, " M+1"]
    count: Int[np.ndarray, " M"]
    confidence: Float[np.ndarray, " M"]  # mean of the bin's predictions
    accuracy: Float[np.ndarray, " M"]

    @property
    def error(self) -> float:
        """The mean over predictions of their bin's |accuracy - confidence|: the expected calibration error.

        Reference: Guo et al. (2017), On calibration of modern neural networks, arXiv:1706.04599, equation 3.
        """
        gaps = np.abs(self.accuracy - self.confidence)[self.count > 0]
        return float(gaps @ self.count[self.count > 0] / self.count.sum())


class Calibrated(NamedTuple):
    """The calibration error that a classifier with the same confidences would show if each were true."""

    mean: float
    limit: float  # which it stays below with the probability of the interval


def log_softmax(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """log p(y | x) of every class."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def figures(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], level: float = 0.95) -> dict[str, Figure]:
    """Accuracy, cross-entropy (nats) and Brier score (squared errors summed over classes, 0 to 2), with intervals.

    The accuracy's is Wilson's, the others' are normal.

    Reference: Brier (1950), Verification of forecasts expressed in terms of probability.
    """
    log_probs = log_softmax(logits)
    correct = logits.argmax(1) == labels
    errors = np.exp(log_probs) - (np.arange(logits.shape[1]) == labels[:, None])
    return {
        "accuracy": share(correct, level),
        "cross_entropy": _mean(-log_probs[np.arange(len(labels)), labels], level),
        "brier": _mean((errors**2).sum(1), level),
    }


def diagnostics(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> dict[str, tuple[float, float]]:
    """Accuracy and cross-entropy with their standard errors, as the end of a run shows them; NaN of broken logits."""
    names = "test accuracy of p(y | x)", "test cross-entropy of p(y | x), nats"
    if not np.isfinite(logits).all():
        return dict.fromkeys(names, (math.nan, math.nan))
    n, right = len(labels), float(np.mean(logits.argmax(1) == labels))
    nats = -log_softmax(logits)[np.arange(n), labels]
    error = float(nats.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return dict(zip(names, ((right, math.sqrt(right * (1 - right) / n)), (float(nats.mean()), error)), strict=True))


def share(hits: Bool[np.ndarray, " N"], level: float = 0.95) -> Figure:
    """The share of hits, with Wilson's interval, which is not empty where all or none are.

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    n, p, z = len(hits), float(np.mean(hits)), NormalDist().inv_cdf((1 + level) / 2)
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Figure(p, max(low, 0.0), min(high, 1.0))


def _mean(values, level):
    half = NormalDist().inv_cdf((1 + level) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    return Figure(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def reliability(
    confidence: Float[np.ndarray, " N"],
    correct: Bool[np.ndarray, " N"],
    num_bins: int = BINS,
    adaptive: bool = False,
) -> Reliability:
    """Predictions in bins of confidence: of equal width, or of equal number ('adaptive').

    A confidence on an edge belongs to the bin below it. Equal confidences that fall on both sides of an adaptive edge
    are parted by their order.

    Raises:
      ValueError: confidences outside of 0 to 1, or no predictions.

    Reference: Guo et al. (2017), arXiv:1706.04599, section 2; adaptive: Nixon et al. (2019), Measuring calibration in
      deep learning, arXiv:1904.01685, section 3.
    """
    index, edges = _bins(confidence, num_bins, adaptive)
    count = np.bincount(index, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(index, values, num_bins) / count for values in (confidence, correct)]
    return Reliability(edges, count, *means)


def _bins(confidence, num_bins, adaptive):
    """The bin of every prediction, and the edges."""
    if not len(confidence) or not (confidence >= 0).all() or not (confidence <= 1).all():
        raise ValueError(f"{len(confidence)} confidences: expected some, all between 0 and 1")
    if not adaptive:
        edges = np.linspace(0, 1, num_bins + 1)
        return np.clip(np.searchsorted(edges, confidence) - 1, 0, num_bins - 1), edges
    order = np.argsort(confidence, kind="stable")
    starts = np.arange(num_bins + 1) * len(order) // num_bins
    index = np.empty(len(order), int)
    index[order] = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    return index, confidence[order[np.minimum(starts, len(order) - 1)]]


def if_calibrated(
    confidence: Float[np.ndarray, " N"],
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    num_bins: int = BINS,
    adaptive: bool = False,
) -> Calibrated:
    """The calibration error of answers that are drawn to be right as often as the confidences say.

    It is above zero, the more the fewer the examples: an error below the limit shows no miscalibration.

    Reference: Broecker and Smith (2007), Increasing the reliability of reliability diagrams (consistency bars).
    """
    index, _ = _bins(confidence, num_bins, adaptive)
    member = np.zeros((len(index), num_bins))
    member[np.arange(len(index)), index] = 1 / len(index)
    generator, size = np.random.default_rng(seed), max(1, CHUNK // len(index))
    errors = []
    for done in range(0, num_resamples, size):
        correct = generator.random((min(size, num_resamples - done), len(index))) < confidence
        errors.append(np.abs((correct - confidence) @ member).sum(1))
    errors = np.concatenate(errors)
    return Calibrated(float(errors.mean()), float(np.quantile(errors, level)))


def temperature(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], num_steps: int = 60) -> float:
    """T of the least cross-entropy of logits / T, between 0.1 and 10.

    Args:
      logits: of examples that are not those whose calibration is reported.

    Reference: Guo et al. (2017), arXiv:1706.04599, section 4.2.
    """
    chosen = logits[np.arange(len(labels)), labels]
    low, high = (math.log(1 / t) for t in TEMPERATURES[::-1])
    for _ in range(num_steps):  # the cross-entropy is convex in 1 / T
        middle = (low + high) / 2
        weights = np.exp(log_softmax(math.exp(middle) * logits))
        slope = np.mean((weights * logits).sum(1) - chosen)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)
