"""Distances between sets of samples, where they are known in closed form."""

import numpy as np
import pytest

from genflow.analysis.distances import frechet, sliced_wasserstein
from genflow.analysis.features import classifier

GENERATOR = np.random.default_rng(0)
NORMAL = GENERATOR.standard_normal((20_000, 4))


def test_sliced_wasserstein_of_a_shift_is_its_length_along_a_random_direction():
    shift = np.array([3.0, 0, 0, 4.0])
    np.testing.assert_allclose(sliced_wasserstein(NORMAL, NORMAL + shift), 5 / np.sqrt(4), rtol=0.08)
    assert sliced_wasserstein(NORMAL, GENERATOR.permutation(NORMAL)) == pytest.approx(0, abs=1e-12)


def test_sliced_wasserstein_of_a_scale_is_the_difference_of_deviations():
    other = 2.5 * GENERATOR.standard_normal((5_000, 4))
    np.testing.assert_allclose(sliced_wasserstein(NORMAL, other), 1.5, rtol=0.05)


def test_frechet_of_gaussians_is_the_wasserstein_distance_of_their_moments():
    scales, shift = np.array([0.5, 1.0, 2.0, 3.0]), np.array([1.0, 0, -1, 0])
    turn = np.linalg.qr(GENERATOR.standard_normal((4, 4)))[0]
    a, b = NORMAL @ turn, (NORMAL * scales + shift) @ turn
    moved = ((scales - 1) ** 2).sum() + 2.0  # the covariances commute
    np.testing.assert_allclose(frechet(a, b), moved, rtol=0.05)
    np.testing.assert_allclose(frechet(b, a), frechet(a, b), rtol=1e-8)
    assert abs(frechet(a, a)) < 1e-8


def test_features_tell_classes_apart_and_have_a_size_of_their_own():
    labels = np.arange(300) % 3
    x = 40 * labels[:, None, None, None] + GENERATOR.normal(size=(300, 4, 4, 1))
    extractor, accuracy = classifier("three", x[:200], labels[:200])
    assert accuracy(x[200:], labels[200:]) > 0.95
    features, probabilities = extractor.describe(x)
    assert features.shape == (300, 64)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert (probabilities[200:].argmax(1) == labels[200:]).mean() == accuracy(x[200:], labels[200:])
    same, other = (frechet(features[labels == 0], features[labels == c]) for c in (0, 2))
    assert other > 10 * abs(same) + 0.1
