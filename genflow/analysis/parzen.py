"""The Gaussian Parzen window: the likelihood that early papers gave to models without a density."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from genflow.analysis.distances import Events, flat

SIGMAS = tuple(np.logspace(-1, 0, 10).tolist())
VALIDATION = 1_000  # examples that choose sigma
CAVEAT = (
    "a Parzen window says little of a model of many dimensions: training images, or centres of clusters, can be above "
    "the true density (Theis et al. 2016, arXiv:1511.01844)"
)


class Parzen(NamedTuple):
    """Mean log-density of test examples in nats, its standard error, and the width of the window."""

    value: float
    standard_error: float
    sigma: float
    is_at_edge: bool  # sigma is the smallest or the largest that was tried: the best may lie beyond


def parzen(samples: Events, validation: Events, test: Events, sigmas: tuple[float, ...] = SIGMAS) -> Parzen:
    """Log-density of test examples under a Gaussian of one width around each sample; the validation part chooses it.

    With 10,000 samples and data in [0, 1] this is the protocol of the paper. A Parzen window says little of a model of
    many dimensions: it is far below the true log-density for any number of samples that one can draw, and ranks
    memorized training images, or centres of clusters, above the true model (Theis et al. 2016, A note on the evaluation
    of generative models, arXiv:1511.01844, section 3.3). Give it beside the figure of as many training images.

    Reference: Goodfellow et al. (2014), Generative adversarial networks, arXiv:1406.2661, section 5; Breuleux et al.
      (2011), Quickly generating representative samples from an RBM-derived process, Neural Computation 23.
    """
    means = [values.mean() for values in log_densities(samples, validation[:VALIDATION], sigmas)]
    best = int(np.argmax(means))
    values = log_densities(samples, test, (sigmas[best],))[0]
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Parzen(float(values.mean()), float(error), sigmas[best], best in (0, len(sigmas) - 1))


def log_densities(samples: Events, x: Events, sigmas: tuple[float, ...]) -> list[Float[np.ndarray, " N"]]:
    """Log of the mean over samples s of N(x; s, sigma^2 I), in nats, for each sigma; distances in chunks."""
    from sklearn.metrics import pairwise_distances_chunked  # a second of every start, if it stood above

    samples, x = flat(samples), flat(x)
    constant = math.log(len(samples)) + x.shape[1] / 2 * math.log(2 * math.pi)
    parts = []
    for distances in pairwise_distances_chunked(x, samples):  # 'euclidean' is a matrix product, 'sqeuclidean' a loop
        squared = distances**2
        sums = [logsumexp(squared / (-2 * sigma**2), axis=1) - x.shape[1] * math.log(sigma) for sigma in sigmas]
        parts.append(sums)
    return [np.concatenate(found) - constant for found in zip(*parts, strict=True)]
