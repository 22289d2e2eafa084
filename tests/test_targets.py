"""Targets, importance weights against them, the two directions of KL, Boltzmann generators."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow.analysis import directions, importance
from genflow.core import Spec
from genflow.data.target import draws, trajectories
from genflow.errors import UserError
from genflow.models import build
from genflow.targets import TARGETS, log_effective_sample_size, particles, posteriors, target
from genflow.targets.planar import two_moons_energy

SMALL = {"name": "boltzmann", "depth": 1, "widths": (8,), "forward_weight": 1.0, "reverse_weight": 1.0}
EXACT = tuple(name for name in TARGETS if name != "lennard_jones")  # the rest is sampled by chains


@functools.cache
def drawn(name):
    return target(name).sample(np.random.default_rng(1), 4_000)


@functools.cache
def made(name="double_well", scale=0.1, **weights):
    """(model, perturbed params, batch) of a small flow with that target."""
    model = build(SMALL | {"target": name} | weights, Spec(name, (target(name).dims,), None))
    x = jnp.asarray(drawn(name)[:256], jnp.float32)
    params, _ = jax.jit(model.init)(jax.random.key(0), {"x": x})
    return model, perturbed(params, 1, scale), {"x": x}


@pytest.mark.parametrize("name", TARGETS)
def test_entropy_and_normalizer_agree_with_samples(name):
    chosen = target(name)
    surprise = chosen.log_normalizer - chosen.log_density(drawn(name), np)
    assert drawn(name).shape == (4_000, chosen.dims)
    error = surprise.std() / math.sqrt(len(surprise))
    assert abs(surprise.mean() - chosen.entropy) < (4 if name in EXACT else 8) * error


@pytest.mark.parametrize("name", TARGETS)
def test_normalizer_agrees_with_importance_sampling_from_a_wide_gaussian(name):
    chosen, rng = target(name), np.random.default_rng(2)
    x = drawn(name)
    if chosen.dims == 2 and name != "double_well":  # a box; every planar target but the double well fills one
        x = rng.uniform(-6.5, 6.5, (60_000, 2))
        log_weights = chosen.log_density(x, np) + 2 * math.log(13)
    else:
        factor = 1.1 * np.linalg.cholesky(np.cov(x, rowvar=False) + 1e-12 * np.eye(chosen.dims))
        if name in ("many_well", "double_well"):
            factor = np.diag(np.tile([1.6, 1.1], chosen.dims // 2))
        white = rng.standard_normal((200_000 if chosen.dims == 6 else 20_000, chosen.dims))
        log_q = -0.5 * (white**2).sum(1) - 0.5 * chosen.dims * math.log(2 * math.pi) - np.log(np.diag(factor)).sum()
        log_weights = chosen.log_density(x.mean(0) + white @ factor.T, np) - log_q
    value, error = importance.log_normalizer(log_weights)
    assert error < 0.06
    assert abs(value - chosen.log_normalizer) < 4 * error


@pytest.mark.parametrize("name", TARGETS)
def test_log_density_is_the_same_in_jax_and_has_finite_gradients_everywhere(name):
    chosen = target(name)
    x = np.concatenate([drawn(name)[:50], np.zeros((1, chosen.dims)), np.full((1, chosen.dims), 30.0)])
    x = x.astype(np.float32)
    value, grad = jax.jit(lambda x: (chosen.log_density(x), jax.grad(lambda x: chosen.log_density(x).sum())(x)))(x)
    assert value.shape == (52,)
    np.testing.assert_allclose(value, chosen.log_density(x.astype(np.float64), np), rtol=2e-4, atol=2e-2)
    assert np.isfinite(grad).all()


def test_the_first_energy_is_that_of_the_paper():
    x1, x2 = 1.2, -0.7
    expected = 0.5 * ((math.hypot(x1, x2) - 2) / 0.4) ** 2
    expected -= math.log(math.exp(-0.5 * ((x1 - 2) / 0.6) ** 2) + math.exp(-0.5 * ((x1 + 2) / 0.6) ** 2))
    np.testing.assert_allclose(two_moons_energy(np.array([[x1, x2]]), np), expected, rtol=1e-10)


def test_pair_energy_is_lennard_jones_outside_the_core_and_smooth_at_it():
    r = np.array([0.85, 1.0, 2 ** (1 / 6), 2.0])
    expected = 4 * particles.DEPTH * (r**-12 - r**-6)
    np.testing.assert_allclose(particles.pair_energy(r**2, np), expected, rtol=1e-12)
    core = particles.CORE**2
    below, at, above = particles.pair_energy(np.array([core - 1e-6, core, core + 1e-6]), np)
    np.testing.assert_allclose(at - below, above - at, rtol=1e-3)
    assert particles.pair_energy(np.array([core]), np) > 80


def test_evidence_of_the_linear_regression_is_the_marginal_likelihood():
    from sklearn.datasets import load_diabetes

    features, response = (posteriors._standardized(a) for a in load_diabetes(return_X_y=True))
    covariance = posteriors.NOISE**2 * np.eye(len(features)) + features @ features.T
    expected = -0.5 * (np.linalg.slogdet(covariance)[1] + response @ np.linalg.solve(covariance, response))
    expected -= 0.5 * len(features) * math.log(2 * math.pi)
    np.testing.assert_allclose(target("linear_regression").log_normalizer, expected, rtol=1e-10)


# Importance weights


def gaussian_weights(num, scale):
    """Log-weights of q = N(0, 1) against exp(3) N(x; 0, scale^2), and x."""
    x = np.random.default_rng(0).standard_normal(num)
    return 3.0 - 0.5 * x**2 * (scale**-2 - 1) - math.log(scale), x


def test_effective_sample_size_has_its_limits_and_its_closed_form():
    assert importance.effective_sample_size(np.full(50, -3000.0)) == pytest.approx(50)
    assert importance.effective_sample_size(np.array([0.0] + [-5000.0] * 49)) == pytest.approx(1)
    log_weights, _ = gaussian_weights(200_000, 0.8)
    expected = 0.8 * math.sqrt(2 - 0.8**2)  # 1 / E_q[(w / Z)^2] of two Gaussians
    relative = importance.effective_sample_size(log_weights) / len(log_weights)
    assert relative == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(jnp.exp(log_effective_sample_size(log_weights)), relative * 200_000, rtol=1e-3)


def test_standard_errors_are_the_spread_of_repeated_estimates():
    log_weights, x = gaussian_weights(400 * 500, 0.8)
    for estimate, known in (
        (lambda w, x: importance.log_normalizer(w), 3.0),
        (lambda w, x: importance.reweight(w, x**2), 0.64),
        (lambda w, x: importance.log_ratio(w, x > 0.5), math.log(0.26598553 / 0.73401447)),
    ):
        pairs = zip(log_weights.reshape(400, 500), x.reshape(400, 500), strict=True)
        values, errors = np.array([estimate(w, x) for w, x in pairs]).T
        assert abs(values.mean() - known) < 5 * values.std() / 20
        assert values.std() == pytest.approx(errors.mean(), rel=0.12)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_pareto_k_finds_the_shape_of_a_pareto_tail(shape):
    weights = np.random.default_rng(0).pareto(1 / shape, (20, 20_000)) + 1
    found = [importance.pareto_k(np.log(w)) for w in weights]
    assert np.mean(found) == pytest.approx(shape, abs=0.06)
    assert math.isnan(importance.pareto_k(np.zeros(20)))


def test_weights_of_a_model_recover_its_normalizer_and_a_known_mean():
    model, params, _ = made("four_gaussians")
    x, log_weights = importance.weighted_samples(model, params, {}, jax.random.key(0), 20_000)
    value, error = importance.log_normalizer(log_weights)
    assert abs(value) < 4 * error < 0.5
    mean, error = importance.reweight(log_weights, x[:, 0])
    assert abs(mean) < 4 * error
    named = importance.diagnostics(model, params, {}, jax.random.key(0), 2_000)
    assert named["log Z, exact"] == (pytest.approx(0.0, abs=1e-5), 0.0)
    assert 0 < named["effective sample size / draws"][0] < 1


def test_samples_come_with_the_density_that_they_have():
    model, params, _ = made()
    x, log_q = jax.jit(lambda p: model.sample_log_prob(p, {}, jax.random.key(3), 50))(params)
    np.testing.assert_allclose(log_q, jax.jit(model.log_prob)(params, {}, None, {"x": x}), atol=1e-4)
    np.testing.assert_allclose(x, model.sample(params, {}, jax.random.key(3), 50), atol=1e-5)


def test_a_model_without_target_has_no_weights():
    model = build({"name": "coupling_flow", "depth": 1, "widths": (8,)}, Spec("points", (2,), None))
    assert importance.diagnostics(model, {}, {}, None) == {}
    with pytest.raises(ValueError, match="needs a model with `target`"):
        importance.weighted_samples(model, {}, {}, None)


# The two directions


def test_forward_kl_in_x_is_reverse_kl_in_z_point_by_point():
    model, params, _ = made("two_moons", 0.3)
    chosen, x = target("two_moons"), drawn("two_moons")[:500]
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params), jnp.asarray(x)
        log_p = chosen.log_density(x) - chosen.log_normalizer
        in_x, in_z = jax.jit(lambda p, x: directions.log_likelihood_ratios(model, p, {}, x, log_p))(params, x)
    in_x, in_z = np.asarray(in_x), np.asarray(in_z)
    assert in_x.std() > 0.1
    np.testing.assert_allclose(in_x, in_z, rtol=0, atol=1e-9)
    assert in_x.mean() > 0


def test_the_losses_are_the_two_divergences_up_to_known_constants():
    model, params, batch = made()
    chosen = target("double_well")
    axis = np.linspace(-10, 10, 500)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_q = np.asarray(jax.jit(model.log_prob)(params, {}, None, {"x": grid.astype(np.float32)}), np.float64)
    mass = np.exp(log_q) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-3)
    expected = (mass * (log_q - chosen.log_density(grid, np))).sum()
    step = jax.jit(lambda key: model.losses["model"](params, {}, key, batch))
    losses, (_, metrics) = jax.vmap(step)(jax.random.split(jax.random.key(0), 200))
    free_energy = np.asarray(metrics["free_energy"], np.float64)
    assert abs(free_energy.mean() - expected) < 4 * free_energy.std() / math.sqrt(200)
    assert free_energy.mean() > -chosen.log_normalizer  # a bound
    np.testing.assert_allclose(losses, metrics["nll"] + metrics["free_energy"], rtol=1e-5)


def test_without_forward_weight_neither_start_nor_loss_depends_on_the_data():
    model, params, batch = made(forward_weight=0.0)
    other = {"x": jnp.full_like(batch["x"], jnp.nan)}
    loss = jax.jit(jax.value_and_grad(lambda p, b: model.losses["model"](p, {}, jax.random.key(0), b)[0]))
    init = jax.jit(lambda b: model.init(jax.random.key(0), b))
    pairs = (loss(params, batch), loss(params, other)), (init(batch), init(other))
    for one, same in pairs:
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_energy_cap_bounds_what_one_sample_can_weigh():
    model, params, batch = made(energy_cap=-9.0)
    free, _, _ = made()
    loss = [jax.jit(m.losses["model"])(params, {}, jax.random.key(0), batch)[1][1] for m in (model, free)]
    assert loss[0]["relative_ess"] == loss[1]["relative_ess"]  # weights are not tamed
    x, log_q = model.sample_log_prob(params, {}, jax.random.key(0), 256)
    energy = -np.asarray(target("double_well").log_density(x))
    assert (energy < -9.5).any()
    tamed = np.where(energy > -9.0, -9.0 + np.log1p(np.maximum(energy + 9.0, 0.0)), energy)
    np.testing.assert_allclose(loss[0]["free_energy"], (np.asarray(log_q) + tamed).mean(), rtol=1e-4)


# As data and from configurations


def test_draws_are_the_same_for_every_seed_but_for_training():
    spec, parts = draws("target:two_moons", 100, 0)
    _, again = draws("target:two_moons", 100, 1)
    assert (spec.name, spec.shape, spec.entropy) == ("target:two_moons", (2,), target("two_moons").entropy)
    assert {part: (d.num, d.arrays["x"].dtype) for part, d in parts.items()}["train"] == (100, np.float32)
    np.testing.assert_array_equal(parts["test"].arrays["x"], again["test"].arrays["x"])
    assert (parts["train"].arrays["x"] != again["train"].arrays["x"]).any()
    rows = {part: set(map(tuple, d.arrays["x"].tolist())) for part, d in parts.items()}
    assert not rows["test"] & (rows["validation"] | rows["train"])


def test_trajectories_stay_where_they_started_and_the_test_part_does_not():
    _, parts = trajectories("trajectories:double_well", 20_000, 0)
    right = {part: (d.arrays["x"][:, 0] > 0).mean() for part, d in parts.items()}
    assert 0.45 < right["train"] < 0.51
    assert right["test"] < 0.02


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (draws, "target:nothing", "target='nothing': expected one of two_moons"),
        (trajectories, "trajectories:two_moons", "double_well has them, write target:NAME"),
    ],
)
def test_a_wrong_name_of_data_is_refused(load, name, message):
    with pytest.raises(UserError, match=message):
        load(name, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "nothing"}, "target='nothing': expected one of"),
        ({"target": "many_well"}, "target='many_well' has 6 dimensions, points has shape"),
        ({"depth": 0}, "depth=0"),
        ({"forward_weight": 0.0, "reverse_weight": 0.0}, "one above zero"),
        ({"forward_weight": -1.0}, "must not be negative"),
        ({"coupling": "additive"}, "coupling='additive': expected one of affine, spline"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        build(SMALL | {"target": "double_well"} | change, Spec("points", (2,), None))
