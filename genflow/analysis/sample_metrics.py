"""How a set of samples differs from data, by features of both: fidelity, variety, and both in one number.

Every metric here depends on how many samples there are, some strongly: a figure stands beside that of as many test
examples, which is what a perfect model has, and never beside a published one of another number.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genflow.analysis.distances import Features, frechet
from genflow.analysis.features import Described
from genflow.data.dataset import permutation

SUBSETS, SUBSET_SIZE = 100, 1_000  # of the kernel distance
SPLITS = 10  # of the Inception score
PUBLISHED = {"frechet": "FID", "kernel": "KID", "class_score": "IS"}  # names that need the published weights


class Figure(NamedTuple):
    """A metric and its standard error, NaN where none is known."""

    value: float
    standard_error: float = math.nan


def kernel(
    a: Features, b: Features, num_subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> Figure:
    """Squared maximum mean discrepancy of two sets, with the kernel (x^T y / D + 1)^3: the mean over random subsets.

    Unbiased: 0 on average for two sets of one distribution, and below it as often as above, whatever their size. The
    standard error is a jackknife that leaves out all but a subset. Near a distance of zero, where the estimate is no
    longer nearly linear in the sets, it is too large, by a factor of 1.5 to 1.75.

    Args:
      subset_size: at most half of the smaller set, to which it is cut.

    Raises:
      ValueError: fewer than four of a set.

    Reference: Binkowski et al. (2018), Demystifying MMD GANs, arXiv:1801.01401, section 4; of the jackknife Shao and Wu
      (1989), A general theory for jackknife variance estimation, Annals of Statistics 17.
    """
    num = min(len(a), len(b))
    size = min(subset_size, num // 2)
    if size < 2:
        raise ValueError(f"{len(a)} and {len(b)} features: expected four or more of each")
    generator = np.random.default_rng(seed)
    values = np.empty(num_subsets)
    for i in range(num_subsets):
        values[i] = _discrepancy(*(s[generator.choice(len(s), size, replace=False)] for s in (a, b)))
    return Figure(float(values.mean()), float(values.std() * math.sqrt(size / (num - size))))


def _discrepancy(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    roots = (x @ y.T / a.shape[1] + 1 for x, y in ((a, a), (b, b), (a, b)))
    of_a, of_b, between = (k * k * k for k in roots)
    same = ((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (of_a, of_b))
    return sum(same) - 2 * between.mean()


def class_score(probabilities: Float[np.ndarray, "N K"], num_splits: int = SPLITS) -> Figure:
    """Exp of the mean KL(p(y | x) || p(y)) of a classifier, between 1 and the number of classes: the Inception score.

    The mean over random splits, the same for every call: samples may come class by class. Papers show the deviation
    over splits, sqrt(num_splits) times this standard error. Biased downwards for few samples a split, and blind to
    variety within a class.

    Raises:
      ValueError: fewer samples than splits.

    Reference: Salimans et al. (2016), Improved techniques for training GANs, arXiv:1606.03498, section 4.
    """
    if len(probabilities) < num_splits:
        raise ValueError(f"{len(probabilities)} samples in {num_splits} splits: expected more")
    p = np.maximum(probabilities[permutation(len(probabilities), 0)].astype(np.float64), np.finfo(np.float64).tiny)
    scores = [
        math.exp((part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()) for part in np.array_split(p, num_splits)
    ]
    error = np.std(scores, ddof=1) / math.sqrt(num_splits) if num_splits > 1 else math.nan
    return Figure(float(np.mean(scores)), float(error))


def precision_recall(samples: Features, data: Features, k: int = 3) -> dict[str, Figure]:
    """Part of the samples within the data's support, and of the data within that of the samples.

    A support is the union of the balls around a set's points that reach to the k-th nearest other one. Outliers of a
    set widen its support. Both rise with the size of the set that makes the balls: let both have one size.

    Raises:
      ValueError: k or fewer of a set.

    Reference: Kynkaanniemi et al. (2019), Improved precision and recall metric, arXiv:1904.06991, equations 1 and 2.
    """
    inside = {"precision": _containing(samples, data, k)[0], "recall": _containing(data, samples, k)[0]}
    return {name: _fraction(counts > 0) for name, counts in inside.items()}


def density_coverage(samples: Features, data: Features, k: int = 5) -> dict[str, Figure]:
    """In how many balls of the data a sample lies, over k; and the part of the data whose ball has a sample.

    Both are 1 for a perfect model and many samples, but for coverage, 1 - 2^-k of as many samples as data. The density
    may be above 1, where samples are densest where the data are.

    Raises:
      ValueError: k or fewer of the data.

    Reference: Naeem et al. (2020), Reliable fidelity and diversity metrics, arXiv:2002.09797, equations 3 and 4.
    """
    counts, covered = _containing(samples, data, k)
    error = counts.std(ddof=1) / k / math.sqrt(len(counts)) if len(counts) > 1 else math.nan
    return {"density": Figure(float(counts.mean() / k), float(error)), "coverage": _fraction(covered)}


def _containing(points, centers, k) -> tuple[Int[np.ndarray, " N"], Bool[np.ndarray, " M"]]:
    """How many balls each point lies in, and which balls have a point; a ball reaches its k-th nearest neighbour.

    In chunks: memory does not grow with the product of the sizes.
    """
    from sklearn.metrics import pairwise_distances_chunked  # a second of every start, if it stood above
    from sklearn.neighbors import NearestNeighbors

    if len(centers) <= k:
        raise ValueError(f"{len(centers)} features: expected more than the {k} neighbours")
    mean = centers.mean(0, dtype=np.float64)  # distances are differences of squares: about zero they lose least
    points, centers = points - mean, centers - mean
    radii = NearestNeighbors(n_neighbors=k).fit(centers).kneighbors()[0][:, -1]
    counts, covered = np.zeros(len(points), np.int64), np.zeros(len(centers), bool)
    start = 0
    for distances in pairwise_distances_chunked(centers, points):
        rows = slice(start, start + len(distances))
        inside = distances <= radii[rows, None]
        counts += inside.sum(0)
        covered[rows] = inside.any(1)
        start += len(distances)
    return counts, covered


def _fraction(hits):
    """Of independent ones: the balls are taken as given."""
    mean = hits.mean()
    return Figure(float(mean), float(math.sqrt(mean * (1 - mean) / len(hits))))


def metrics(samples: Described, data: Described, name: str, seed: int = 0) -> dict[str, Figure]:
    """All of them, by name, as far as there are enough samples: the Frechet distance to all the data.

    The others compare with as many examples of the data as there are samples, chosen at random.

    Args:
      name: of the extractor; 'inception' gives FID, KID and IS their names.
    """
    num = min(len(samples.features), len(data.features))
    a, all_of_b = samples.features, data.features
    b = all_of_b[np.random.default_rng(seed).permutation(len(all_of_b))[:num]]
    found = {"frechet": Figure(frechet(a, all_of_b))} if num > 1 else {}
    found |= {"kernel": kernel(a, b, seed=seed)} if num > 3 else {}
    if samples.probabilities is not None and len(samples.probabilities) >= SPLITS:
        found["class_score"] = class_score(samples.probabilities)
    found |= precision_recall(a, b) if num > 3 else {}
    found |= density_coverage(a, b) if num > 5 else {}
    published = PUBLISHED if name == "inception" else {}
    return {published.get(metric, f"{metric}_{name}"): figure for metric, figure in found.items()}
