"""Distances between two sets of vectors: the sliced Wasserstein distance, Frechet's of their moments."""

import numpy as np
from jaxtyping import Float

PROJECTIONS = 512

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

    Biased upwards, the more the fewer samples and the more features there are: the figure of 5,000 samples is not that
    of 50,000, and covariances of fewer samples than features are singular. Compare sets of one size.

    Raises:
      ValueError: fewer than two of a set, or features that are not finite.

    Reference: Heusel et al. (2017), GANs trained by a two time-scale update rule, arXiv:1706.08500, equation 6; of the
      bias Chong and Forsyth (2020), Effectively unbiased FID and Inception score, arXiv:1911.07023.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"{len(a)} and {len(b)} features: expected two or more of each, all finite")
    cov_a, cov_b = (np.atleast_2d(np.cov(s, rowvar=False)) for s in (a, b))
    # tr((C_a C_b)^(1/2)): the roots of products are singular values, none of which is squared on the way
    cross = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _root(matrix):
    """Square root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def flat(x: Events) -> Features:
    """[N, *event] as float64 [N, D]."""
    return np.asarray(x, np.float64).reshape(len(x), -1)
