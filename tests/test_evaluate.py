"""The ruler: dequantization, bits per dimension, errors, baselines with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.data.dataset import in_memory
from genflow.dequantize import center, continuous, dequantizer, uniform, variational
from genflow.distributions import normal_kl, normal_log_prob, standard_normal_sample
from genflow.evaluate import batches, in_unit, log_probs, nonfinite, score, unit
from genflow.models.baseline import baselines, gaussian, independent_pixels, uniform_bins
from genflow.models.flow import flow
from genflow.networks import mlp

BINS = [2, 17, 32, 256]


def spec_of(bins, shape=(2, 2, 1)):
    return Spec("test", shape, bins)


def scored(spec, model, x, params=None, repeats=1):
    """Score of a model on x through the ruler, in small batches."""
    values = log_probs(model, {} if params is None else params, {}, in_memory(x), jax.random.key(0), 7, repeats)
    return score(spec, values)


def unit_cube_density(spec):
    """p(y) = 1 on the unit cube, through the dequantizer."""
    noise = dequantizer(spec)

    def log_prob(params, state, key, batch):
        y, log_weight = noise.forward({}, batch["x"], None, key)
        inside = (jnp.abs(y) <= 0.5).all((1, 2, 3))
        return jnp.where(inside, 0.0, -jnp.inf) + log_weight

    return Model(lambda key, batch: ({}, {}), {}, None, log_prob, "lower")


@pytest.mark.parametrize("bins", BINS)
def test_uniform_noise_scores_log2_of_the_bins_exactly(bins):
    x = np.random.default_rng(0).integers(0, bins, (20, 2, 2, 1)).astype(np.uint8)
    for model in (uniform_bins(spec_of(bins)), unit_cube_density(spec_of(bins))):
        result = scored(spec_of(bins), model, x)
        wanted = 4 * np.log(2) if bins == 2 else np.log2(bins)  # nats an image, or bits/dim
        np.testing.assert_allclose(result.value, wanted, rtol=1e-6)
        np.testing.assert_allclose(result.standard_error, 0.0, atol=1e-6)


def test_a_histogram_scores_its_cross_entropy_as_a_mass_and_as_a_flow():
    rng = np.random.default_rng(0)
    train, test = (rng.binomial(4, 0.3, (n, 2, 2, 1)).astype(np.uint8) for n in (300, 50))
    mass = np.stack([np.bincount(train[:, i, j, 0], minlength=5) + 1.0 for i in (0, 1) for j in (0, 1)]) / 305
    expected = -np.log2(mass[np.arange(4), test.reshape(50, 4)]).mean()
    spec = spec_of(5)
    np.testing.assert_allclose(scored(spec, independent_pixels(spec, train), test).value, expected, rtol=1e-6)
    model = flow(spec, bj.histogram_gaussianization(5, smoothing=1.0))
    params, _ = model.init(jax.random.key(1), {"x": jnp.asarray(train)})
    np.testing.assert_allclose(scored(spec, model, test, params).value, expected, rtol=1e-5)


def test_the_gaussian_baseline_is_the_gaussian_density():
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.0], [0.8, 0.3]])
    train, test = (rng.normal(size=(n, 2)) @ mixing.T + 3 for n in (5000, 2000))
    spec = Spec("correlated", (2,), None)
    model = gaussian(spec, train.astype(np.float32))
    assert model.bound == "exact"
    entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * mixing @ mixing.T))
    result = scored(spec, model, test.astype(np.float32))
    np.testing.assert_allclose(result.value, entropy, atol=4 * result.standard_error)


def test_baselines_are_those_that_apply():
    x = np.zeros((9, 2, 2, 1), np.uint8)
    assert list(baselines(spec_of(4), x)) == ["uniform", "independent pixels", "full-covariance Gaussian"]
    assert list(baselines(Spec("c", (2,), None), np.zeros((9, 2), np.float32) + np.arange(9)[:, None])) == [
        "full-covariance Gaussian"
    ]


@pytest.mark.parametrize("bins", BINS)
def test_dequantization_comes_back_for_every_value_and_noise(bins):
    values = jnp.arange(bins, dtype=jnp.uint8)[:, None]
    noise = uniform(bins)
    draws = jax.vmap(lambda key: noise.forward({}, values, None, key)[0])(jax.random.split(jax.random.key(0), 2000))
    assert (np.abs(np.asarray(draws)) <= 0.5).all()
    np.testing.assert_array_equal(noise.inverse(draws), np.broadcast_to(values, draws.shape))
    middle, log_weight = noise.forward({}, values)
    np.testing.assert_array_equal(noise.inverse(middle), values)
    np.testing.assert_allclose(log_weight, -np.log(bins), rtol=1e-6)


@pytest.mark.parametrize("bins", BINS)
def test_dequantization_holds_at_the_ends_of_the_noise(bins, monkeypatch):
    values = jnp.arange(bins, dtype=jnp.uint8)[:, None]
    for u in (0.0, 2.0**-24, 1 - 2.0**-24):
        monkeypatch.setattr(jax.random, "uniform", lambda key, shape, u=u: jnp.full(shape, u, jnp.float32))
        y, _ = uniform(bins).forward({}, values, None, jax.random.key(0))
        np.testing.assert_array_equal(uniform(bins).inverse(y), values)


def test_out_of_range_and_nan_survive_the_way_back_as_such():
    back = np.asarray(uniform(4).inverse(jnp.array([-3.0, 3.0, jnp.nan])))
    np.testing.assert_array_equal(back, [0.0, 3.0, np.nan])


def test_continuous_data_pass_unchanged():
    x = jnp.array([[1.0, 2.0]])
    y, log_weight = continuous().forward({}, x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_weight, [0.0])
    np.testing.assert_array_equal(center(x, Spec("c", (2,), None)), x)
    np.testing.assert_allclose(center(jnp.array([0, 255], jnp.uint8), spec_of(256)), [-1.0, 1.0])


def learned_noise(bins):
    """A variational dequantizer of pairs, noise depending on the values; wide noise, for weights of low variance."""
    coupling = bj.coupling(bj.affine(lambda raw: 0.7 + 0.1 * jnp.tanh(raw)), mlp((8,)))
    return variational(bins, bj.chain(coupling, bj.flip(), coupling), mlp((8,))(3))


@pytest.mark.parametrize("noise", [uniform(4), learned_noise(4)], ids=["uniform", "variational"])
def test_importance_samples_close_the_gap_of_dequantization(noise):
    """P(x) = int_bin N(y) dy under the identity flow, in closed form."""
    spec = Spec("pairs", (2,), 4)
    x = np.array([[a, b] for a in range(4) for b in range(4)], np.uint8)
    edges = np.asarray(jax.scipy.stats.norm.cdf(np.arange(5) / 4 - 0.5), np.float64)
    exact = np.log(np.diff(edges))[x].sum(1)
    model = flow(spec, bj.identity(), noise)
    params, _ = model.init(jax.random.key(0), {"x": x})
    data, key = in_memory(x), jax.random.key(1)
    one = log_probs(model, params, {}, data, key, 16, num_repeats=200)
    many = log_probs(model, params, {}, data, key, 16, importance_samples=20_000)
    assert (one < exact + 0.02).all()
    np.testing.assert_allclose(many, exact, atol=0.03)


def test_variational_noise_stays_in_its_bin_and_has_a_middle():
    values = jnp.arange(256, dtype=jnp.uint8).reshape(128, 2)
    noise = learned_noise(256)
    params, _ = noise.init(jax.random.key(0), values)
    wild = jax.tree.map(lambda a: 30 * a + 3, params)
    y, log_weight = noise.forward(wild, values, None, jax.random.key(1))
    np.testing.assert_array_equal(noise.inverse(y), values)
    assert np.isfinite(np.asarray(log_weight)).all()
    np.testing.assert_array_equal(noise.forward(params, values)[0], noise.forward(params, values)[0])


def test_units():
    discrete, density = spec_of(256, (4, 4, 3)), Spec("c", (2,), None)
    assert (unit(discrete), unit(density)) == ("bits/dim", "nats")
    np.testing.assert_allclose(in_unit(discrete, 48 * np.log(2.0) * 3.5), 3.5)
    assert in_unit(density, 2.5) == 2.5


def test_binary_images_are_measured_in_nats_text_in_bits_a_character_and_sound_in_bits_a_sample():
    binary, text, sound = Spec("b", (2, 2, 1), 2), Spec("t", (4,), 2, symbols=("a", "b")), Spec("s", (4,), 256)
    sound = sound._replace(sample_rate=8000)
    assert [unit(spec) for spec in (binary, text, sound)] == ["nats", "bits/char", "bits/sample"]
    assert [in_unit(spec, 8 * np.log(2.0)) for spec in (binary, text, sound)] == pytest.approx([8 * np.log(2), 2, 2])


def test_the_score_has_the_standard_error_of_the_mean_and_refuses_nan():
    values = np.random.default_rng(0).normal(size=400)
    result = score(Spec("c", (1,), None), values)
    np.testing.assert_allclose(result, (-values.mean(), values.std(ddof=1) / 20, 400))
    with pytest.raises(FloatingPointError, match="2 of 4 examples of test, first index 1"):
        score(Spec("c", (1,), None), np.array([0.0, np.nan, 1.0, np.inf]), "test")


@pytest.mark.parametrize(("num", "limit", "expected"), [(7, 0, [3, 3, 1]), (6, 0, [3, 3]), (7, 4, [3, 1])])
def test_batches_cover_each_example_once(num, limit, expected):
    seen = list(batches(in_memory(np.arange(num)), 3, limit))
    assert [count for _, count in seen] == expected
    real = np.concatenate([batch["x"][:count] for batch, count in seen])
    np.testing.assert_array_equal(real, np.arange(limit or num))
    assert {len(batch["x"]) for batch, _ in seen} == {3}


def test_repeats_average_the_noise_of_each_example():
    model = Model(None, {}, None, lambda p, s, key, b: jax.random.normal(key, b["x"].shape[:1]), "lower")
    data = in_memory(np.zeros((64, 1), np.float32))
    few, many = (log_probs(model, {}, {}, data, jax.random.key(0), 64, r).std() for r in (1, 64))
    assert many < few / 4


def test_draws_that_are_no_weights_are_not_put_into_a_log_mean_exp():
    model = Model(None, {}, None, lambda p, s, key, b: jnp.zeros(len(b["x"])), "average")
    data = in_memory(np.zeros((4, 1), np.float32))
    assert log_probs(model, {}, {}, data, jax.random.key(0), 4).shape == (4,)
    with pytest.raises(ValueError, match="importance_samples=2: a draw of this model's bound is no importance weight"):
        log_probs(model, {}, {}, data, jax.random.key(0), 4, importance_samples=2)
    weighed = model._replace(log_weights=lambda p, s, key, b, num: jnp.ones((len(b["x"]), num)))
    found = log_probs(weighed, {}, {}, data, jax.random.key(0), 4, importance_samples=2, samples_per_call=2)
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)
    assert not log_probs(weighed, {}, {}, data, jax.random.key(0), 4).any()  # one draw: log_prob itself


def test_normal_kl_is_the_expected_log_ratio():
    mean, log_std, grid = 0.7, -0.4, np.linspace(-12, 12, 20001)
    q = np.exp(np.asarray(normal_log_prob(grid, mean, log_std)))
    ratio = np.asarray(normal_log_prob(grid, mean, log_std)) - np.asarray(normal_log_prob(grid))
    np.testing.assert_allclose(normal_kl(mean, log_std), np.trapezoid(q * ratio, grid), rtol=1e-4)


def test_temperature_scales_every_level_or_each_its_own():
    like = {"a": jax.ShapeDtypeStruct((2000,), jnp.float32), "b": jax.ShapeDtypeStruct((2000,), jnp.float32)}
    drawn = standard_normal_sample(jax.random.key(0), like, (0.0, 0.5))
    assert float(jnp.abs(drawn["a"]).sum()) == 0
    np.testing.assert_allclose(np.std(drawn["b"]), 0.5, rtol=0.05)
    with pytest.raises(ValueError, match="3 values, the latent has 2 levels"):
        standard_normal_sample(jax.random.key(0), like, (1.0, 1.0, 1.0))


def test_nonfinite_counts_samples_not_pixels():
    x = np.zeros((4, 2, 2, 1))
    x[1, 0], x[3, 1, 1] = np.nan, np.inf
    assert nonfinite(x) == 2
