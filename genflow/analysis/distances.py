"""Distances between two sets of samples, for models whose samples are to be compared and not their likelihoods.

The features here are those of a small classifier that is trained on the data set itself. Distances of such features
compare samplers or models on one data set; they are not FID, whose features are those of one fixed Inception network.
"""

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

PROJECTIONS = 512
HIDDEN, BATCH = 64, 200  # of the classifier: hidden units, examples an update
UPDATES, PASSES = 3_000, 20  # at least so many, and so many times over the data

Events = Float[np.ndarray, "N *event"]
Features = Float[np.ndarray, "N D"]


def sliced_wasserstein(a: Events, b: Events, num_projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Square root of the mean, over random directions, of the squared 2-Wasserstein distance of projections.

    In units of the data, of the set with more samples as many as the other has, chosen at random. It is biased: two
    sets of one distribution have a distance above zero, less the more samples there are.

    Reference: Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures, J. Math. Imaging Vis. 51.
    """
    generator = np.random.default_rng(seed)
    num = min(len(a), len(b))
    a, b = (flat(generator.permutation(s)[:num] if len(s) > num else s) for s in (a, b))
    directions = generator.standard_normal((a.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    difference = np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)
    return float(np.sqrt((difference**2).mean()))


def frechet(a: Features, b: Features) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two sets of features: 0 for equal moments.

    Biased upwards for few samples, like any estimate of it: compare sets of one size.

    Reference: Heusel et al. (2017), GANs trained by a two time-scale update rule, arXiv:1706.08500, equation 6.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(s, rowvar=False)) for s in (a, b))
    root = _root(cov_a)
    cross = _root(root @ cov_b @ root)  # of the same trace as (C_a C_b)^(1/2), and symmetric
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(distance + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(cross))


def _root(matrix):
    """Square root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def classifier_features(
    x: Events, labels: Int[np.ndarray, " N"], seed: int = 0
) -> tuple[Callable[[Events], Features], Callable[[Events, Int[np.ndarray, " N"]], float]]:
    """Trains a perceptron with one hidden layer; returns its hidden units as a function of events, and its accuracy.

    Events are scaled to the range that they have here.
    """
    low, span = x.min(), max(np.ptp(x), 1e-12)
    batch_size = min(BATCH, len(x))
    passes = max(UPDATES * batch_size // len(x), PASSES)
    classifier = MLPClassifier((HIDDEN,), random_state=seed, max_iter=passes, batch_size=batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a limit of passes that is meant
        classifier.fit((flat(x) - low) / span, labels)

    def features(events):
        return np.maximum((flat(events) - low) / span @ classifier.coefs_[0] + classifier.intercepts_[0], 0)

    def accuracy(events, labels):
        return float(classifier.score((flat(events) - low) / span, labels))

    return features, accuracy


def flat(x: Events) -> Features:
    """[N, *event] as float64 [N, D]."""
    return np.asarray(x, np.float64).reshape(len(x), -1)
