"""Restricted Boltzmann machines against enumeration: energies, gradients, Gibbs sampling, partition functions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import cli, train, use
from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build, harmonium
from genflow.models.harmonium import bernoulli_visible, gaussian_visible
from genflow.models.rbm import FORWARD, REVERSE, Annealing, annealed_log_partition, contrastive
from genflow.samplers.annealed_importance import annealed_walk, dense_at_the_end, log_mean_weight

BINARY = Spec("binary", (2, 3, 1), 2)
D, H = 6, 4
CODES = {n: np.array(list(itertools.product((0.0, 1.0), repeat=n)), np.float32) for n in (D, H)}


UNITS = {"bernoulli": bernoulli_visible(), "gaussian": gaussian_visible()}


def params(key, hidden=H, dims=D, scale=0.7):
    keys = jax.random.split(jax.random.key(key), 4)
    return {
        "kernel": scale * jax.random.normal(keys[0], (dims, hidden)),
        "visible_bias": scale * jax.random.normal(keys[1], (dims,)),
        "hidden_bias": scale * jax.random.normal(keys[2], (hidden,)),
    }


def joint_energy(kind, p, v, h):
    """E(v, h) as the papers write it, in numpy: [V, H']."""
    p = {k: np.asarray(a, np.float64) for k, a in p.items()}
    own = -v @ p["visible_bias"] if kind == "bernoulli" else 0.5 * ((v - p["visible_bias"]) ** 2).sum(1)
    return own[:, None] - (h @ p["hidden_bias"])[None] - v @ p["kernel"] @ h.T


@pytest.mark.parametrize("kind", UNITS)
def test_the_free_energy_and_the_means_are_those_of_the_joint_energy(kind):
    units, p = UNITS[kind], params(0)
    v = CODES[D] if kind == "bernoulli" else np.asarray(jax.random.normal(jax.random.key(5), (7, D)))
    weights = np.exp(-joint_energy(kind, p, v, CODES[H]))
    np.testing.assert_allclose(harmonium.free_energy(units, p, v), -np.log(weights.sum(1)), rtol=1e-4, atol=1e-5)
    posterior = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(harmonium.hidden_mean(p, v), posterior @ CODES[H], rtol=1e-4, atol=1e-6)


def test_the_partition_function_of_binary_units_is_the_sum_over_all_states():
    for hidden in (H, 11):  # one chunk of states, and two
        p = params(1, hidden=hidden)
        codes = np.array(list(itertools.product((0.0, 1.0), repeat=hidden)), np.float32)
        expected = np.log(np.exp(-joint_energy("bernoulli", p, CODES[D], codes)).sum())
        found = jax.jit(functools.partial(harmonium.log_partition_exact, bernoulli_visible()))(p)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_partition_function_of_gaussian_units_is_the_integral():
    units, p = gaussian_visible(), params(2, hidden=3, dims=1)
    v = np.linspace(-30, 30, 20_001)[:, None]
    density = np.exp(-np.asarray(harmonium.free_energy(units, p, v), np.float64))
    expected = np.log(density.sum() * (v[1, 0] - v[0, 0]))
    np.testing.assert_allclose(harmonium.log_partition_exact(units, p), expected, rtol=1e-4)
    apart = p | {"kernel": jnp.zeros((1, 3))}
    exact = harmonium.log_partition_exact(units, apart)
    np.testing.assert_allclose(harmonium.log_partition_apart(units, apart), exact, rtol=1e-5)


def test_gibbs_sampling_has_the_model_as_its_stationary_distribution():
    units, p = bernoulli_visible(), params(3)
    mass = np.exp(-np.asarray(harmonium.free_energy(units, p, CODES[D]), np.float64))
    mass /= mass.sum()
    start = jax.random.choice(jax.random.key(0), jnp.asarray(CODES[D]), (40_000,), p=jnp.asarray(mass))
    ends = np.asarray(jax.jit(lambda v: harmonium.gibbs(units, p, jax.random.key(1), v, 1))(start))
    assert (ends != np.asarray(start)).any(1).mean() > 0.5
    share = np.bincount((ends @ 2 ** np.arange(D)[::-1]).astype(int), minlength=2**D) / len(ends)
    assert np.abs(share - mass).max() < 5 * np.sqrt(mass.max() / len(ends))


def test_gibbs_sampling_of_gaussian_units_keeps_their_moments():
    units, p = gaussian_visible(), params(4, scale=0.5)
    states = CODES[H]
    total = states @ np.asarray(p["kernel"]).T
    log_mass = states @ np.asarray(p["hidden_bias"]) + np.asarray(units.log_normalizer(p, total))
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    key_h, key_v, key = jax.random.split(jax.random.key(2), 3)
    chosen = jax.random.choice(key_h, jnp.asarray(total), (40_000,), p=jnp.asarray(mass))
    drawn = units.draw(p, chosen, key_v, 1.0)
    ends = np.asarray(jax.jit(lambda v: harmonium.gibbs(units, p, key, v, 2))(drawn))
    mean = mass @ (np.asarray(p["visible_bias"]) + total)
    second = mass @ ((np.asarray(p["visible_bias"]) + total) ** 2 + 1)
    np.testing.assert_allclose(ends.mean(0), mean, atol=0.05)
    np.testing.assert_allclose((ends**2).mean(0), second, rtol=0.05)


@pytest.mark.parametrize("kind", UNITS)
def test_the_gradient_is_that_of_a_machine_with_the_offsets_taken_off_its_units(kind):
    """The centered machine is written down, differentiated, stepped, and brought into the form of this one."""
    units, p = UNITS[kind], params(5)
    data, fantasy = (jax.random.bernoulli(jax.random.key(k), 0.4, (9, D)).astype(jnp.float32) for k in (6, 7))
    mu, lam = jax.random.uniform(jax.random.key(8), (D,)), jax.random.uniform(jax.random.key(9), (H,))
    a, b = p["visible_bias"] + p["kernel"] @ lam, p["hidden_bias"] + p["kernel"].T @ mu

    def gap(w, a, b):
        def free(v):
            logits = (v - mu) @ w + b
            return -units.field(p | {"visible_bias": a}, v) + logits @ lam - jax.nn.softplus(logits).sum(1)

        return free(data).mean() - free(fantasy).mean()

    steps = jax.grad(gap, (0, 1, 2))(p["kernel"], a, b)
    w, a, b = (old - 0.1 * step for old, step in zip((p["kernel"], a, b), steps, strict=True))
    expected = {"kernel": w, "visible_bias": a - w @ lam, "hidden_bias": b - w.T @ mu}
    found = jax.grad(lambda p: contrastive(units, p, data, fantasy, mu, lam))(p)
    for name in expected:
        np.testing.assert_allclose(p[name] - 0.1 * found[name], expected[name], atol=1e-5)


def test_without_offsets_the_gradient_is_the_derivative_of_the_value():
    units, p = bernoulli_visible(), params(10)
    data, fantasy = CODES[D][:9], CODES[D][20:29]

    def gap(p):
        return harmonium.free_energy(units, p, data).mean() - harmonium.free_energy(units, p, fantasy).mean()

    value, found = jax.value_and_grad(lambda p: contrastive(units, p, data, fantasy))(p)
    np.testing.assert_allclose(value, gap(p), rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, jax.grad(gap)(p))


@pytest.mark.parametrize("kind", UNITS)
def test_annealed_importance_sampling_meets_the_sum_from_both_sides(kind):
    units, p = UNITS[kind], params(11, scale=0.6)
    exact = float(harmonium.log_partition_exact(units, p))
    estimate = jax.jit(lambda p, key, mean: annealed_log_partition(units, p, mean, key, Annealing(400, 200)))
    found = {n: (float(v), float(e)) for n, (v, e) in estimate(p, jax.random.key(0), jnp.full(D, 0.3)).items()}
    assert set(found) == {FORWARD, REVERSE}
    for value, error in found.values():
        assert 0 < error < 0.2
        assert abs(value - exact) < 4 * error


def test_a_short_walk_errs_towards_less_forward_and_towards_more_backward():
    units, p = bernoulli_visible(), params(12, scale=2.0)
    estimate = jax.jit(lambda key: annealed_log_partition(units, p, jnp.full(D, 0.5), key, Annealing(4, 3)))
    found = [estimate(key) for key in jax.random.split(jax.random.key(0), 100)]
    exact = float(harmonium.log_partition_exact(units, p))
    low, high = (np.mean([float(f[name][0]) for f in found]) for name in (FORWARD, REVERSE))
    assert low < exact - 0.1
    assert high > exact + 0.1


def test_an_annealed_walk_estimates_the_ratio_of_two_gaussians():
    """From N(0, 1) to an unnormalized N(1, 1 / 4) by independent draws: log Z = log(1 / 2)."""
    mean, precision = (lambda beta: 4 * beta / (1 + 3 * beta)), (lambda beta: 1 + 3 * beta)

    def log_density(x, beta):
        return -0.5 * (1 - beta) * x**2 - 0.5 * beta * 4 * (x - 1) ** 2

    def transition(key, x, beta):
        return mean(beta) + jax.random.normal(key, x.shape) / jnp.sqrt(precision(beta))

    both = lambda x, beta, after: (log_density(x, beta), log_density(x, after))  # noqa: E731
    x = jax.random.normal(jax.random.key(0), (2_000,))
    walk = annealed_walk(both, transition, jax.random.key(1), x, jnp.linspace(0, 1, 20))
    value, error = log_mean_weight(walk.log_weights)
    assert abs(value - np.log(0.5)) < 4 * error < 0.1
    assert abs(np.mean(walk.x) - 1) < 0.05


def test_temperatures_are_dense_where_the_model_is_near():
    betas = dense_at_the_end(14_500)
    assert (len(betas), betas[0], betas[-1]) == (14_501, 0.0, 1.0)
    assert [int((betas < b).sum()) for b in (0.5 - 1e-9, 0.9 - 1e-9)] == [500, 4_500]
    assert (np.diff(dense_at_the_end(29)) > 0).all()


@functools.cache
def machine(**options):
    model = build({"name": "rbm", "hidden": H, "weight_std": 0.5, "sample_steps": 5} | options, BINARY)
    x = jax.random.bernoulli(jax.random.key(3), 0.4, (8, *BINARY.shape)).astype(jnp.uint8)
    params, state = model.init(jax.random.key(0), {"x": x})
    return model, params, state, x


def test_probabilities_of_all_images_add_to_one():
    model, params, state, _ = machine()
    images = jnp.asarray(CODES[D]).reshape(-1, *BINARY.shape)
    assert np.isnan(model.log_prob(params, state, None, {"x": images})).all()  # log Z is not known yet
    state = model.energy_based.normalize(params, state, jax.random.key(0))
    log_prob = np.asarray(model.log_prob(params, state, None, {"x": images}), np.float64)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-5)
    energies = model.energy(params, state, images)
    np.testing.assert_allclose(log_prob - log_prob[0], -(energies - energies[0]), atol=1e-4)


def test_persistent_chains_go_on_and_others_begin_at_the_data():
    for persistent in (True, False):
        model, params, state, x = machine(persistent=persistent, centering=False)
        far = state | {"chains": 1 - state["chains"]}
        key = jax.random.key(4)
        ends = [model.losses["model"](params, s, key, {"x": x})[1][0]["chains"] for s in (state, far)]
        assert (np.asarray(ends[0]) != np.asarray(ends[1])).any() == persistent


def test_each_part_of_a_batch_has_chains_of_its_own():
    model, params, state, x = machine()
    first = jax.jit(model.losses["model"])(params, state, jax.random.key(4), {"x": x[:4]})[1][0]
    assert first["chains"].shape == state["chains"].shape
    rows = [np.asarray(s["chains"]).reshape(4, 2, -1) for s in (state, first)]
    np.testing.assert_array_equal(rows[1][:, 0], rows[0][:, 1])  # not yet moved, and next
    after = jax.jit(model.losses["model"])(params, first, jax.random.key(5), {"x": x[:4]})[1][0]
    ends = np.asarray(after["chains"]).reshape(4, 2, -1)
    np.testing.assert_array_equal(ends[:, 0], rows[1][:, 1])  # in their order again
    assert (ends != rows[0]).any(2).sum() >= 4


def test_gaussian_units_are_standardized_and_their_density_is_that_of_the_data():
    """One hidden unit: the density of one coordinate is a mixture of two Gaussians in the data's own scale."""
    spec = Spec("line", (1,), None)
    model = build({"name": "rbm", "hidden": 1, "visible": "gaussian", "noise_std": 0.5}, spec)
    x = 40 + 10 * jax.random.normal(jax.random.key(0), (64, 1))
    params, state = model.init(jax.random.key(1), {"x": x})
    params = {"model": params["model"] | {"kernel": jnp.array([[1.5]]), "hidden_bias": jnp.array([0.3])}}
    state = model.energy_based.normalize(params, state, jax.random.key(0))
    grid = jnp.linspace(-60, 140, 4_001)[:, None]
    density = np.exp(np.asarray(model.log_prob(params, state, None, {"x": grid}), np.float64))
    np.testing.assert_allclose(density.sum() * 0.05, 1.0, rtol=1e-4)
    drawn = np.asarray(model.sample(params, state, jax.random.key(2), 4_000))
    np.testing.assert_allclose(drawn.mean(), (density * grid[:, 0]).sum() * 0.05, atol=0.5)
    np.testing.assert_allclose(np.asarray(state["scale"]), 0.5 * np.asarray(x).std(), rtol=1e-5)


def nats_before_and_after(model, params, state, x, rate, num_steps):
    """The exact likelihood of x, which contrastive divergence never sees, at the start and after some steps."""

    def nats(params, state):
        state = model.energy_based.normalize(params, state, jax.random.key(0))
        return -float(model.log_prob(params, state, jax.random.key(1), {"x": x}).mean())

    @jax.jit
    def trained(params, state):
        def one(i, carry):
            params, state = carry
            grads, (state, _) = jax.grad(model.losses["model"], has_aux=True)(
                params, state, jax.random.fold_in(jax.random.key(6), i), {"x": x}
            )
            return jax.tree.map(lambda a, g: a - rate * g, params, grads), state

        return jax.lax.fori_loop(0, num_steps, one, (params, state))

    return nats(params, state), nats(*trained(params, state))


def test_gaussian_units_learn_images_with_constant_pixels():
    spec = Spec("blinking", (2, 3, 1), 5)
    on = jax.random.bernoulli(jax.random.key(0), 0.5, (64, 1, 1, 1))
    x = (4 * on * jnp.array([[1, 1, 1], [0, 0, 0]])[..., None]).astype(jnp.uint8)
    model = build({"name": "rbm", "hidden": 4, "visible": "gaussian", "noise_std": 0.3}, spec)
    params, state = model.init(jax.random.key(1), {"x": x})

    before, after = nats_before_and_after(model, params, state, x, 0.02, 1_000)
    assert np.isfinite(after)
    assert after < before - 10


def test_training_raises_the_likelihood_of_bars():
    """Images of whole rows."""
    model, params, state, _ = machine(weight_std=0.05, offset_rate=0.05)
    rows = jax.random.bernoulli(jax.random.key(5), 0.5, (64, 2, 1, 1))
    x = jnp.broadcast_to(rows, (64, *BINARY.shape)).astype(jnp.uint8)
    state = model.init(jax.random.key(0), {"x": x})[1]

    before, after = nats_before_and_after(model, params, state, x, 0.05, 1_500)
    assert before > 4.0
    assert 2 * np.log(2) - 0.1 < after < 2.2  # from above the entropy of two fair rows, as this sample has them


def test_evaluation_with_another_seed_estimates_log_z_anew_and_tells_all_estimates(tmp_path, capsys):
    fields = {"train.num_steps": "2", "eval.baselines": "false", "eval.every": "0", "sample.num": "2"}
    train.train(cli.load_config("configs/rbm_mnist.py:debug", fields), str(tmp_path))
    first, again, other = (use.evaluate_run(str(tmp_path), seed) for seed in (0, 0, 1))
    assert first == again
    names = {"log Z by forward AIS (nats)", "log Z by reverse AIS (nats)", "test score by reverse AIS"}
    assert names <= set(first["partition"])
    out = capsys.readouterr().out
    assert all(name in out for name in names)
    for name in names:
        assert first["partition"][name]["value"] != other["partition"][name]["value"]
    assert first["test"]["value"] == pytest.approx(first["partition"]["test score by forward AIS"]["value"])


@pytest.mark.parametrize(
    ("options", "spec", "message"),
    [
        ({}, BINARY._replace(bins=17), "visible='bernoulli' is for two values, and binary has 17 values; set config"),
        ({"visible": "softmax"}, BINARY, "visible='softmax': expected one of bernoulli, gaussian"),
        ({"offset_rate": 1.5}, BINARY, "offset_rate=1.5 must be between 0 and 1"),
        ({"hidden": 0}, BINARY, "must be above zero, not 0, 1"),
        ({"ais_chains": 1}, BINARY, "ais_chains .2 or more. and ais_steps must be above zero"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, spec, message):
    with pytest.raises(UserError, match=message):
        build({"name": "rbm"} | options, spec)
