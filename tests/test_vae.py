"""One-level VAEs: what the tables of models cannot see of posteriors, priors and the objective."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow import bijectors as bj
from genflow.core import Spec
from genflow.distributions import normal_log_prob
from genflow.models import build
from genflow.models.causal_decoder import conditional_observation
from genflow.models.markov import markov
from genflow.models.posteriors import POSTERIORS, posterior
from genflow.models.priors import PRIORS, prior
from genflow.networks import mlp

X = jax.random.normal(jax.random.key(0), (3, 4))
POINTS = Spec("points", (2,), None)


def encoder(features):
    return mlp((8,))(features)


def of_gaussian(name, dims=2, components=3):
    """A prior by name, and parameters of its level, far from where they start."""
    q = posterior("gaussian", encoder, dims, 1, (8,), 2)
    p = prior(name, q, dims, 2, (8,), components)

    @jax.jit
    def init(key):
        return {"inference": q.init(key, X), "generation": {"prior": p.init(key, X, jnp.zeros((3, dims)))}}

    params = perturbed(init(jax.random.key(1)), 1, 0.5 if name == "mixture" else 0.2)
    if name == "mixture":
        params["generation"]["prior"]["logits"] = jnp.array([0.0, 1.0, 3.0])
    return q, p, params


@functools.cache
def on_a_grid(name):
    """(grid, density at each point times its area, 4096 draws, their density, draws without noise)."""
    _, p, params = of_gaussian(name)
    axis = np.linspace(-11, 11, 200, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)

    @jax.jit
    def everything(params):
        z = p.draw(params, jax.random.key(3), 4096)
        return p.log_prob(params, grid), z, p.log_prob(params, z), p.draw(params, jax.random.key(3), 5, 0.0)

    log_density, z, of_draws, cold = everything(params)
    return grid, np.exp(np.asarray(log_density, np.float64)) * (axis[1] - axis[0]) ** 2, z, of_draws, cold


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_integrates_to_one_and_draws_what_its_density_says(name):
    grid, mass, z, of_draws, cold = on_a_grid(name)
    np.testing.assert_allclose(mass.sum(), 1, rtol=2e-3)
    assert name == "normal" or np.abs(mass @ grid).max() > 0.05  # or the standard normal would pass for it
    moments = [np.concatenate([a, a**2, a[:, :1] * a[:, 1:]], 1) for a in (grid, np.asarray(z, np.float64))]
    error = moments[1].std(0) / np.sqrt(len(z))
    assert (np.abs(moments[1].mean(0) - mass @ moments[0]) < 5 * error).all()
    entropy = -(mass * np.log(mass / (22 / 199) ** 2, where=mass > 0, out=np.zeros_like(mass))).sum()
    assert abs(entropy + np.asarray(of_draws, np.float64).mean()) < 5 * np.asarray(of_draws).std() / np.sqrt(len(z))
    np.testing.assert_array_equal(cold, np.tile(cold[:1], (5, 1)))


@pytest.mark.parametrize("name", POSTERIORS)
def test_the_density_of_a_draw_is_a_change_of_variables(name):
    """Under the same key, moving the mean moves the noise: differences of draws are columns of dz / dz_0."""
    with jax.enable_x64(True):
        q, step = posterior(name, encoder, 3, 2, (8,), 2), 1e-5

        @jax.jit
        def everything(x):
            params = perturbed(q.init(jax.random.key(1), x), 2, 0.4)
            e = q.evidence(params, x)
            start, *context = (e,) if name == "gaussian" else e

            def draw(move):
                moved = start._replace(mean=start.mean + move)
                return q.draw(params, jax.random.key(3), (moved, *context) if context else moved)

            rows = step * jnp.eye(3)
            z, log_q = jax.vmap(draw)(jnp.concatenate([rows, -rows, jnp.zeros((1, 3))]))
            return z, log_q[-1], start.log_std

        z, log_q, log_std = everything(X.astype(jnp.float64))
        jacobian = np.moveaxis(np.asarray(z[:3] - z[3:6]), 0, -1) / (2 * step)
        noise = jax.random.normal(jax.random.key(3), (3, 3), jnp.float64)
        expected = (normal_log_prob(noise) - log_std).sum(1) - np.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(log_q, expected, rtol=1e-6)


def test_a_vamp_prior_of_one_input_is_the_posterior_there():
    q, p, params = of_gaussian("vamp", components=1)

    @jax.jit
    def both(params, z):
        u = params["generation"]["prior"]["inputs"]
        there = q.evidence(params["inference"], jnp.repeat(u, len(z), axis=0))
        return p.log_prob(params, z), there.log_prob(z)

    np.testing.assert_allclose(*both(params, jnp.linspace(-2, 2, 10).reshape(5, 2)), rtol=1e-5)


def test_a_planar_flow_stays_invertible_where_its_parameters_would_fold_it():
    """w.u = -40: u alone gives a map whose slope along w is -39 in the middle."""
    params = {"raw": jnp.array([4.0, 0.0, -10.0, 3.0, 0.2])}
    x = jnp.stack([jnp.linspace(-3, 3, 41), jnp.ones(41)], 1)

    @jax.jit
    def both(x):
        z, log_det = bj.planar().forward(params, x)
        return z, log_det, *bj.planar().inverse(params, z)

    z, log_det, back, opposite = both(x)
    assert (np.diff(np.asarray(z[:, 0])) > 0).all()
    assert np.isfinite(np.asarray(log_det)).all()
    clear = np.asarray(log_det) > -7  # elsewhere z hardly moves with x, and float32 cannot tell x from its neighbours
    np.testing.assert_allclose(np.asarray(back)[clear], np.asarray(x)[clear], atol=2e-3)
    np.testing.assert_allclose((log_det + opposite)[clear], 0, atol=2e-2)


def test_an_autoregressive_observation_draws_what_its_mass_says():
    spec = Spec("two bits", (1, 2, 1), 2, cond_dims=1)
    seen = conditional_observation(markov(spec, order=1, widths=(), conditional=True), spec)
    events = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]]).reshape(4, 1, 2, 1)

    @jax.jit
    def everything(h):
        params = perturbed(seen.init(jax.random.key(1), h, events), 2, 0.5)
        mass = jnp.exp(seen.log_prob(params, jnp.repeat(h, 4, axis=0), jnp.tile(events, (2, 1, 1, 1))))
        draws = seen.sample(params, jax.random.key(3), jnp.repeat(h, 2000, axis=0))
        return mass.reshape(2, 4), draws.reshape(2, 2000, 2), seen.mean(params, h).reshape(2, 2)

    mass, draws, likeliest = everything(jnp.array([[-2.0], [2.0]]))
    assert np.abs(np.asarray(mass[0] - mass[1])).max() > 0.2  # h matters
    for expected, x, greedy in zip(np.asarray(mass, np.float64), np.asarray(draws), likeliest, strict=True):
        frequency = np.bincount((2 * x[:, 0] + x[:, 1]).astype(int), minlength=4) / len(x)
        np.testing.assert_allclose(frequency, expected, atol=5 * np.sqrt(0.25 / len(x)))
        first = int(expected[2:].sum() > 0.5)
        np.testing.assert_array_equal(greedy, [first, int(expected[2 * first + 1] > expected[2 * first])])


@pytest.mark.parametrize(
    ("objective", "floor", "weights"),  # examples seen before the step -> the weight of the KL, examples seen after it
    [
        ({"beta": 4.0}, -np.inf, {0: (4.0, 1), 7: (4.0, 1)}),
        ({"free_nats": 50.0, "beta": 2.0}, 50.0, {0: (2.0, 1)}),
        ({"beta": 0.5, "kl_warmup": 40}, -np.inf, {0: (0.0, 3), 30: (0.375, 33), 39: (0.4875, 40), 40: (0.5, 40)}),
    ],
)
def test_the_loss_weighs_and_floors_the_kl(objective, floor, weights):
    model = build({"name": "vae", "latent_dims": 2, "widths": (4,)} | objective, POINTS)

    @jax.jit
    def everything(x, key, examples):
        params = perturbed(model.init(jax.random.key(5), {"x": x})[0], 8)
        state = {"examples": examples}
        drawn = model.latent.infer(params, state, key, {"x": x})
        other = model.latent.infer(params, state, jax.random.key(7), {"x": x})
        return drawn, other.kl, model.losses["model"](params, state, key, {"x": x})

    for examples, (weight, after) in weights.items():
        drawn, other, (loss, (state, metrics)) = everything(X[:, :2], jax.random.key(6), jnp.int32(examples))
        np.testing.assert_allclose(drawn.kl, other, rtol=1e-6)  # in closed form, whatever is drawn
        kl = float(drawn.kl.mean())
        expected = weight * max(kl, floor) - float(drawn.log_likelihood.mean())
        np.testing.assert_allclose((loss, metrics["kl"]), (expected, kl), rtol=1e-5)
        assert state["examples"] == after
