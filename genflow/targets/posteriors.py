"""Posteriors of regressions on data that scikit-learn ships: log p(data | w) + log p(w), so that Z is the evidence."""

import math

import jax.numpy as jnp
import numpy as np

from genflow.targets.target import Target, tabulated

NOISE = 0.7  # standard deviation of the standardized response given the features
PRIOR = 3.0  # standard deviation of a weight of the logistic regression
LOG_2PI = math.log(2 * math.pi)


def _normal(x, std):
    return -0.5 * (x / std) ** 2 - math.log(std) - 0.5 * LOG_2PI


def linear_regression(name: str) -> Target:
    """Bayesian linear regression: y ~ N(X w, 0.7^2 I), w ~ N(0, I), on the ten standardized features of `diabetes`.

    The posterior is Gaussian, so evidence, entropy and samples are exact.

    Reference: Bishop (2006), Pattern recognition and machine learning, equations 3.49 to 3.51 and 3.86.
    """
    from sklearn.datasets import load_diabetes

    features, response = load_diabetes(return_X_y=True)
    features, response = _standardized(features), _standardized(response)
    num, dims = features.shape
    precision = np.eye(dims) + features.T @ features / NOISE**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ features.T @ response / NOISE**2
    factor = np.linalg.cholesky(covariance)

    def log_density(w, xp=jnp):
        shift = (w - xp.asarray(mean, w.dtype)) @ xp.asarray(np.linalg.inv(factor).T, w.dtype)
        return top - 0.5 * (shift**2).sum(1)

    top = float(_normal(response - features @ mean, NOISE).sum() + _normal(mean, 1.0).sum())
    half_log_det = float(np.log(np.diag(factor)).sum()) + 0.5 * dims * LOG_2PI
    sample = lambda rng, num: mean + rng.standard_normal((num, dims)) @ factor.T  # noqa: E731
    return Target(name, dims, log_density, sample, top + half_log_det, half_log_det + 0.5 * dims)


def logistic_regression(name: str) -> Target:
    """Bayesian logistic regression of two species of `iris` on petal length and width: P(y = 1) = sigmoid(X w).

    w = (intercept, two slopes) ~ N(0, 3^2 I); evidence and entropy by quadrature.

    Reference: Bishop (2006), Pattern recognition and machine learning, section 4.5.
    """
    from sklearn.datasets import load_iris

    features, species = load_iris(return_X_y=True)
    chosen = species > 0  # versicolor and virginica, the two that touch
    features = np.concatenate([np.ones((100, 1)), _standardized(features[chosen][:, 2:])], axis=1)
    signed = features * (2.0 * species[chosen, None] - 3)  # P(y | w) = sigmoid(signed @ w)

    def log_density(w, xp=jnp):
        scores = w @ xp.asarray(signed, w.dtype).T
        return -xp.logaddexp(xp.zeros_like(scores), -scores).sum(1) + _normal(w, PRIOR).sum(1)

    return tabulated(name, log_density, (-4.0, -3.0, -3.0), (5.0, 13.0, 13.0), 72)


def _standardized(a):
    return (a - a.mean(0)) / a.std(0)
