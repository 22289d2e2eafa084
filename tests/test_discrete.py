"""Distributions of integers: masses that sum to one however extreme, finite gradients, draws that follow the masses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit, log_softmax, logsumexp

from genflow.distributions import (
    bernoulli,
    bernoulli_log_prob,
    categorical,
    discretized_logistic_log_prob,
    logistic_mixture,
    mu_law_decode,
    mu_law_encode,
    truncate_logits,
)


def mixture_raw(means, log_scales, components, channels, logits=0.0, coefficients=0.0):
    """Raw output of a mixture, the same for all channels, or [components] for each."""
    rows = [logits, *[means] * channels, *[log_scales] * channels, *[coefficients] * (channels * (channels - 1) // 2)]
    return np.concatenate([np.broadcast_to(np.asarray(row, np.float32), components) for row in rows])


def extreme_mixtures(components, channels):
    rng = np.random.default_rng(0)
    num_params = logistic_mixture(2, components, channels).num_params
    corners = itertools.product(
        (-5.0, -1.0, 0.1, 1.0, 5.0), (-90.0, -7.0, -3.0, 0.0, 5.0, 20.0, 90.0), (-80.0, 0.3, 80.0)
    )
    raws = [mixture_raw(m, s, components, channels, np.linspace(-80, 80, components), a) for m, s, a in corners]
    return np.stack([*raws, *rng.normal(size=(20, num_params)), *5 * rng.normal(size=(20, num_params))]).astype(
        np.float32
    )


def logits(bins):
    rng = np.random.default_rng(0)
    corners = [np.zeros(bins), 80 * np.eye(bins)[0], -80 * np.eye(bins)[-1], np.linspace(-80, 80, bins)]
    return np.stack([*corners, *3 * rng.normal(size=(20, bins))]).astype(np.float32)


# name -> (output, values it may take, channels, raw at ordinary and extreme parameters)
TABLE = {
    "bernoulli": (bernoulli(), 2, 1, np.array([[-80], [-3], [0], [0.1], [3], [80]], np.float32)),
    "categorical": (categorical(5), 5, 1, logits(5)),
    "mu-law softmax": (categorical(256), 256, 1, logits(256)),
    "logistic mixture": (logistic_mixture(256, 3), 256, 1, extreme_mixtures(3, 1)),
    "logistic mixture of 2 bins": (logistic_mixture(2, 2), 2, 1, extreme_mixtures(2, 1)),
    "logistic mixture, 3 channels": (logistic_mixture(5, 2, 3), 5, 3, extreme_mixtures(2, 3)),
}


def support(bins, channels):
    return np.array(list(itertools.product(range(bins), repeat=channels)), np.int32)


@pytest.mark.parametrize("name", TABLE)
def test_a_mass_sums_to_one_and_has_gradients_at_extreme_parameters(name):
    output, bins, channels, raw = TABLE[name]
    assert raw.shape[1] == output.num_params
    x = support(bins, channels)

    @jax.jit
    def both(raw):
        each = jnp.broadcast_to(raw[:, None], (len(raw), len(x), raw.shape[1]))
        return output.log_prob(raw[:, None], x[None]), jax.grad(lambda raw: output.log_prob(raw, x[None]).sum())(each)

    log_mass, gradients = both(raw)
    assert log_mass.dtype == jnp.float32
    assert np.isfinite(np.asarray(log_mass)).all()
    np.testing.assert_allclose(np.exp(np.asarray(log_mass, np.float64)).sum(1), 1.0, atol=1e-4)
    assert np.isfinite(np.asarray(gradients)).all()


def log_mass_of_logistic(x, mean, log_scale, bins):
    """In float64, by another way: the difference of the cumulative probabilities on that side where it is small."""
    center = 2 * x / (bins - 1) - 1 - mean
    upper = np.where(x == bins - 1, np.inf, (center + 1 / (bins - 1)) * np.exp(-log_scale))
    lower = np.where(x == 0, -np.inf, (center - 1 / (bins - 1)) * np.exp(-log_scale))
    upper, lower = np.where(center > 0, -lower, upper), np.where(center > 0, -upper, lower)
    return log_expit(upper) + np.log1p(-np.exp(log_expit(lower) - log_expit(upper)))


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_the_rounded_logistic_agrees_with_float64(bins):
    x = np.arange(bins, dtype=np.float64)[:, None, None]
    mean, log_scale = np.array([-5.0, -1.0, 0.1, 1.0, 5.0])[:, None], np.array([-7.0, -3.0, 0.0, 5.0])
    wanted = log_mass_of_logistic(x, mean, log_scale, bins)
    single = jax.jit(discretized_logistic_log_prob, static_argnums=3)(*map(np.float32, (x, mean, log_scale)), bins)
    assert np.asarray(single).dtype == np.float32
    np.testing.assert_allclose(single, wanted, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(np.exp(np.asarray(single, np.float64)).sum(0), 1.0, rtol=2e-4)


def test_the_mixture_is_the_sum_of_its_parts_and_means_follow_the_channels_before():
    raw = np.random.default_rng(1).normal(size=(4, 2 * 10)).astype(np.float32)
    x = np.array([[0, 3, 7], [7, 7, 0], [2, 5, 1], [4, 0, 6]])
    weights, means, log_scales, a = np.split(raw.reshape(4, 10, 2).astype(np.float64), (1, 4, 7), axis=1)
    z, a = 2 * x[..., None] / 7 - 1, np.tanh(a)
    shifts = [0, a[:, 0] * z[:, 0], a[:, 1] * z[:, 0] + a[:, 2] * z[:, 1]]
    parts = [log_mass_of_logistic(x[:, c, None], means[:, c] + shifts[c], log_scales[:, c], 8) for c in range(3)]
    wanted = logsumexp(log_softmax(weights[:, 0], axis=-1) + sum(parts), axis=-1)
    np.testing.assert_allclose(jax.jit(logistic_mixture(8, 2, 3).log_prob)(raw, x), wanted, rtol=1e-4)


DRAWN = {
    "bernoulli": (bernoulli(), 2, 1, np.array([0.7], np.float32)),
    "categorical": (categorical(5), 5, 1, logits(5)[-1]),
    "logistic mixture": (
        logistic_mixture(16, 3),
        16,
        1,
        mixture_raw([-1.1, 0.2, 0.9], [-1.0, -2.0, -1.0], 3, 1, [1, 0, 1]),
    ),
    "logistic mixture, 3 channels": (
        logistic_mixture(3, 2, 3),
        *(3, 3, mixture_raw([-0.4, 0.5], [-1.0, 0.0], 2, 3, [0.0, 1.0], [-1.0, 2.0])),
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_follow_the_mass(name):
    output, bins, channels, raw = DRAWN[name]
    num, x = 40_000, support(bins, channels)
    mass = np.exp(jax.jit(output.log_prob)(np.broadcast_to(raw, (len(x), len(raw))), x))
    drawn = np.asarray(jax.jit(output.sample)(jax.random.key(0), np.broadcast_to(raw, (num, len(raw)))))
    assert drawn.shape == (num, channels)
    assert drawn.dtype == np.int32
    counts = np.bincount(np.ravel_multi_index(drawn.T, (bins,) * channels), minlength=len(x))
    assert (np.abs(counts - num * mass) < 5 * np.sqrt(num * mass) + 3).all()


@pytest.mark.parametrize(
    ("output", "raw", "wanted"),
    [
        (bernoulli(), [0.7], [1]),
        (bernoulli(), [-0.7], [0]),
        (categorical(4), [0.1, 3.0, -1.0, 2.9], [1]),
        (logistic_mixture(256, 2), mixture_raw([-0.5, 0.2], 0.0, 2, 1, [0, 1]), [153]),
        (logistic_mixture(5, 2, 2), mixture_raw([0.9, -0.5], 0.0, 2, 2, [-1, 2], 80), [1, 0]),  # -1/2, then -1/2 - 1/2
        (logistic_mixture(256, 1), mixture_raw(3.0, 0.0, 1, 1), [255]),
    ],
)
def test_temperature_zero_is_the_mode(output, raw, wanted):
    raws = np.broadcast_to(np.asarray(raw, np.float32), (50, len(raw)))
    drawn = jax.jit(output.sample)(jax.random.key(0), raws, 0.0)
    assert (np.asarray(drawn) == wanted).all()


def test_a_temperature_divides_logits_and_multiplies_the_scale():
    num, raw, key = 40_000, np.float32([0.0, 1.0, -0.5]), jax.random.key(0)
    drawn = categorical(3).sample(key, jnp.broadcast_to(raw, (num, 3)), 0.5)
    frequencies = np.bincount(np.asarray(drawn)[:, 0], minlength=3) / num
    np.testing.assert_allclose(frequencies, np.exp(log_softmax(2.0 * raw)), atol=0.01)
    ones = bernoulli().sample(key, jnp.full((num, 1), 0.4), 0.5).mean()
    np.testing.assert_allclose(ones, expit(0.8), atol=0.01)
    narrow = logistic_mixture(256, 1).sample(key, jnp.broadcast_to(mixture_raw(0.0, -2.0, 1, 1), (num, 3)), 0.5)
    deviation = 0.5 * np.exp(-2.0) * np.pi / np.sqrt(3) * 127.5
    np.testing.assert_allclose(np.std(narrow), deviation, rtol=0.03)


NEG = -np.inf
RAW = [2.0, 0.0, 1.0, 3.0]  # probabilities 0.237, 0.032, 0.087, 0.644


@pytest.mark.parametrize(
    ("raw", "top_k", "top_p", "kept"),
    [
        (RAW, 0, 1.0, [0, 1, 2, 3]),
        (RAW, 1, 1.0, [3]),
        (RAW, 3, 1.0, [0, 2, 3]),
        (RAW, 9, 1.0, [0, 1, 2, 3]),
        (RAW, 0, 0.0, [3]),
        (RAW, 0, 0.6, [3]),
        (RAW, 0, 0.7, [0, 3]),
        (RAW, 0, 0.9, [0, 2, 3]),
        (RAW, 0, 0.99, [0, 1, 2, 3]),
        (RAW, 2, 0.8, [0, 3]),  # of the two that are left, the first has 0.73
        (RAW, 2, 0.7, [3]),
        ([1.0, 0.0, 1.0, 1.0], 2, 1.0, [0, 2, 3]),  # what ties with the last that is kept stays
        ([1.0, 0.0, 1.0, 1.0], 0, 0.4, [0, 2, 3]),
        ([NEG, 0.0, NEG, 1.0], 3, 0.99, [1, 3]),
        ([-80.0, 80.0, 80.0, -80.0], 0, 0.9999, [1, 2]),
    ],
)
def test_truncation_keeps_the_likeliest_and_leaves_them_as_they_are(raw, top_k, top_p, kept):
    raw = np.asarray(raw, np.float32)
    wanted = np.where(np.isin(np.arange(4), kept), raw, -np.inf)
    batch = np.stack([raw, raw[::-1]])[:, None]
    result = np.asarray(truncate_logits(jnp.asarray(batch), top_k, top_p))
    np.testing.assert_array_equal(result[:, 0], np.stack([wanted, wanted[::-1]]))


@pytest.mark.parametrize("bins", [2, 16, 256])
def test_mu_law_comes_back(bins):
    codes = jnp.arange(bins)
    np.testing.assert_array_equal(mu_law_encode(mu_law_decode(codes, bins), bins), codes)
    wave = np.concatenate([np.linspace(-1, 1, 2001), np.geomspace(1e-6, 1, 100)]).astype(np.float32)
    back = np.asarray(mu_law_decode(mu_law_encode(jnp.asarray(wave), bins), bins))
    mu = bins - 1

    def compand(w):
        return np.sign(w) * np.log1p(mu * np.abs(w)) / np.log1p(mu)

    assert (np.abs(compand(back) - compand(wave)) <= (1 + 1e-4) / mu).all()
    assert (np.abs(back) <= 1 + 1e-6).all()


def test_mu_law_codes_of_zero_and_of_the_ends():
    wave = jnp.array([-2.0, -1.0, 0.0, 0.25, 1.0, 2.0])
    companded = np.log1p(255 * 0.25) / np.log(256)
    np.testing.assert_array_equal(mu_law_encode(wave), [0, 0, 128, round(255 * (1 + companded) / 2), 255, 255])


def test_a_bernoulli_has_its_gradient_everywhere():
    logits = jnp.array([-1e4, -30.0, -1.0, -0.0, 0.0, 1.0, 30.0, 1e4])
    for x in (0.0, 1.0):
        gradient = jax.vmap(jax.grad(lambda logit, x=x: bernoulli_log_prob(jnp.float32(x), logit)))(logits)
        np.testing.assert_allclose(gradient, x - jax.nn.sigmoid(logits), atol=1e-7)
        np.testing.assert_allclose(
            bernoulli_log_prob(jnp.full(8, x), logits), x * logits - jax.nn.softplus(logits), rtol=1e-6, atol=1e-7
        )
