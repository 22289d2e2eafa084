"""Latent variable models: one table of identities between what they infer, what they generate and what they bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import TABLE, made

from genflow.core import is_trainable
from genflow.distributions import normal_kl, normal_log_prob, rounded_logistic
from genflow.evaluate import compiled_weights
from genflow.models import build
from genflow.models.latent import doubly_reparameterized, log_mean_exp, log_weight

LATENT = [name for name, row in TABLE.items() if build(*row).latent is not None]
DRAWS = 512  # of every example


def small(name):
    """A row with parameters halved: q is then near p, and the weights have a spread that a test can average."""
    model, spec, params, state, batch = made(name)
    return model, spec, jax.tree.map(lambda a: a / 2 if is_trainable(a) else a, params), state, batch


@functools.cache
def drawn(name):
    """What the identities of a row need, compiled once."""
    model, _, params, state, batch = small(name)
    latent, few = model.latent, {"x": batch["x"][:2]}

    @jax.jit
    def everything(params, key, lowest):
        one = latent.infer(params, state, key, batch)
        again = latent.joint(params, state, jax.random.split(key)[1], one.z, batch)
        cut = latent.infer(params, state, key, batch, jnp.arange(latent.num_levels) < latent.num_levels - lowest, 0.5)
        weights = model.log_weights(params, state, key, few, DRAWS)
        many = jax.tree.map(lambda a: jnp.repeat(a, DRAWS, axis=0), few)
        z = latent.generate(params, state, key, 2 * DRAWS)
        return (
            one,
            again,
            cut,
            weights,
            latent.joint(params, state, key, z, many),
            latent.infer(params, state, key, many),
        )

    return everything, everything(params, jax.random.key(3), 0)


@pytest.mark.parametrize("name", LATENT)
def test_the_densities_of_drawn_latents_are_those_of_the_joint(name):
    model, _, _, _, batch = made(name)
    one, (log_prior, log_likelihood), *_ = drawn(name)[1]
    shape = (model.latent.num_levels, len(batch["x"]))
    assert one.log_prior.shape == one.log_posterior.shape == one.kl.shape == shape
    assert {len(leaf) for leaf in jax.tree.leaves(one.z)} == {len(batch["x"])}
    np.testing.assert_allclose(log_prior, one.log_prior, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(log_likelihood, one.log_likelihood, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", LATENT)
def test_the_evidence_is_the_same_by_draws_of_the_posterior_and_of_the_prior(name):
    """E_q[w] = p(x) = E_p(z)[p(x | z)]: both estimates are unbiased, so q, p and what draws them must agree."""
    _, _, _, weights, (_, log_likelihood), _ = drawn(name)[1]
    for one, other in zip(weights, log_likelihood.reshape(-1, DRAWS), strict=True):
        a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
        top = max(a.max(), b.max())
        a, b = np.exp(a - top), np.exp(b - top)
        error = np.hypot(a.std(), b.std()) / np.sqrt(DRAWS)
        assert abs(a.mean() - b.mean()) < 5 * error
        assert error < 0.3 * a.mean()  # or the test would see nothing


@pytest.mark.parametrize("name", LATENT)
def test_kl_is_the_mean_of_its_integrand(name):
    *_, many = drawn(name)[1]
    difference = np.asarray(many.log_posterior - many.log_prior - many.kl, np.float64)
    per_level = difference.reshape(len(difference), -1)
    error = per_level.std(1) / np.sqrt(per_level.shape[1])
    assert (np.abs(per_level.mean(1)) <= 5 * error + 1e-5).all()


@pytest.mark.parametrize("name", LATENT)
def test_levels_from_the_prior_leave_those_above_alone(name):
    everything, (_, _, full, *_) = drawn(name)
    model, _, params, state, batch = small(name)
    num_levels = model.latent.num_levels
    for lowest in {1, num_levels}:
        cut = everything(params, jax.random.key(3), lowest)[2]
        np.testing.assert_allclose(
            cut.log_prior[: num_levels - lowest], full.log_prior[: num_levels - lowest], rtol=1e-5
        )
        assert (np.asarray(cut.log_likelihood) != np.asarray(full.log_likelihood)).any()
    nothing = jax.jit(lambda x: model.latent.infer(params, state, jax.random.key(3), {"x": x}, False))
    for a, b in zip(*(jax.tree.leaves(nothing(x).z) for x in (batch["x"], batch["x"][::-1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # the prior has not seen x


@pytest.mark.parametrize("name", LATENT)
def test_the_log_weight_is_the_sum_of_its_terms_and_grows_with_the_number_of_draws(name):
    _, _, _, weights, _, many = drawn(name)[1]
    assert np.isfinite(np.asarray(log_weight(many))).all()
    rows = np.asarray(weights, np.float64)
    bounds = [np.mean([np.logaddexp.reduce(r.reshape(-1, k), 1).mean() - np.log(k) for r in rows]) for k in (1, 8, 64)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1]


def test_chunks_of_draws_are_all_draws():
    model, _, params, state, batch = made("vae")
    key = jax.random.key(1)
    chunked = compiled_weights(model.log_weights, 3)(params, state, key, batch, 7)
    parts = [model.log_weights(params, state, jax.random.fold_in(key, i), batch, 3) for i in range(3)]
    np.testing.assert_allclose(chunked, log_mean_exp(jnp.concatenate(parts, 1)[:, :7]), rtol=1e-5)


@pytest.mark.parametrize("prior", [(0.0, 0.0), (0.7, -0.5)])
def test_the_kl_of_two_gaussians_is_its_quadrature(prior):
    z = np.linspace(-30, 30, 200_001)
    for mean, log_std in ((0.0, 0.0), (1.5, 0.8), (-0.4, -1.2)):
        log_q = np.asarray(normal_log_prob(z, mean, log_std), np.float64)
        log_p = np.asarray(normal_log_prob(z, *prior), np.float64)
        integral = (np.exp(log_q) * (log_q - log_p)).sum() * (z[1] - z[0])
        np.testing.assert_allclose(normal_kl(jnp.float32(mean), log_std, *prior), integral, rtol=1e-4, atol=1e-5)


def test_the_rounded_logistic_sums_to_one_and_has_its_mean():
    raw = jnp.array([[0.2, -1.5], [-0.3, -2.0], [0.0, -9.0]])
    output = rounded_logistic(16, -3.0)
    mass = np.exp(np.asarray(jax.vmap(lambda v: output.log_prob(raw, jnp.full((3, 1), v)))(jnp.arange(16.0))))
    np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose((mass * np.arange(16)[:, None]).sum(0), output.mean(raw)[:, 0], atol=0.6)


def test_the_doubly_reparameterized_gradient_weighs_twice_through_the_latents():
    """On log w_k = a z_k + b with z_k = c e_k: d/db = 1, and d/dc = sum_k w~_k^2 a e_k, by hand."""
    noise = jnp.array([[0.3, -1.0, 2.0]])
    params = {"a": jnp.float32(0.7), "b": jnp.float32(-0.2)}

    def bound(params, c):
        return doubly_reparameterized(
            lambda p, z: p["a"] * z.reshape(1, 3) + p["b"], params, c * noise.reshape(-1)
        ).sum()

    value, (of_params, of_c) = jax.value_and_grad(bound, argnums=(0, 1))(params, jnp.float32(1.1))
    log_w = 0.7 * 1.1 * np.asarray(noise[0], np.float64) - 0.2
    share = np.exp(log_w) / np.exp(log_w).sum()
    np.testing.assert_allclose(value, np.log(np.exp(log_w).mean()), rtol=1e-5)
    np.testing.assert_allclose(of_params["b"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(of_params["a"], (share * 1.1 * np.asarray(noise[0])).sum(), rtol=1e-5)
    np.testing.assert_allclose(of_c, (share**2 * 0.7 * np.asarray(noise[0])).sum(), rtol=1e-5)
