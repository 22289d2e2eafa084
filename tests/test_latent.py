"""Latent variable models: one table of identities between what they infer, what they generate and what they bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import TABLE, VAE, evaluated, made

from genflow import sharding
from genflow.core import combine, is_trainable, partition
from genflow.distributions import normal_kl, normal_log_prob, rounded_logistic
from genflow.evaluate import compiled_weights
from genflow.models import build
from genflow.models.latent import GRADIENTS, Hierarchy, Objective, check_objective, doubly_reparameterized, log_mean_exp
from genflow.models.linear_gaussian import log_evidence, posterior_kl

LATENT = [name for name, row in TABLE.items() if build(*row).latent is not None]
DRAWS = 512  # of every example
# Levels whose KL is log q - log p of the draw: under a flow or a mixture, or given what q passes upwards.
KL_OF_THE_DRAW = {
    "hvae": (1, 2),
    "iaf_vae": (1, 2),
    "iwae": (2,),
    "nvae, flows": (1, 2, 3),
    "vae, coupling posterior, coupling prior": (1,),
    "vae, iaf posterior, autoregressive prior": (1,),
    "vae, planar posterior, mixture prior": (1,),
    "vae, vamp prior, autoregressive decoder": (1,),
}


def halved(a):
    """By numpy, as `perturbed` adds its noise."""
    return jax.device_put(np.asarray(a) / 2) if is_trainable(a) else a


def small(name):
    """A row with parameters halved: q is then near p, and the weights have a spread that a test can average."""
    model, spec, params, state, batch = made(name)
    return model, spec, jax.tree.map(halved, params), state, batch


@functools.cache
def drawn(name):
    """What the identities of a row need, compiled once."""
    model, _, params, state, batch = small(name)
    latent, few = model.latent, {"x": batch["x"][:2]}

    @jax.jit
    def everything(params, key, lowest, cold):
        one = latent.infer(params, state, key, batch)
        one_weight = model.log_weights(params, state, key, batch, 1)
        again = latent.joint(params, state, jax.random.split(key)[1], one.z, batch)
        from_below = latent.num_levels - jnp.arange(latent.num_levels)
        cut = latent.infer(params, state, key, batch, from_below > lowest, jnp.where(from_below > cold, 0.5, 0.0))
        weights = model.log_weights(params, state, key, few, DRAWS)
        many = jax.tree.map(lambda a: jnp.repeat(a, DRAWS, axis=0), few)
        z = latent.generate(params, state, key, 2 * DRAWS)
        return (
            (one, one_weight),
            again,
            cut,
            weights,
            latent.joint(params, state, key, z, many),
            latent.infer(params, state, key, many),
        )

    return everything, everything(params, jax.random.key(3), 0, 0)


@pytest.mark.parametrize("name", LATENT)
def test_the_densities_of_drawn_latents_are_those_of_the_joint(name):
    model, _, _, _, batch = made(name)
    (one, log_weights), (log_prior, log_likelihood), *_ = drawn(name)[1]
    shape = (model.latent.num_levels, len(batch["x"]))
    assert one.log_prior.shape == one.log_posterior.shape == one.kl.shape == shape
    assert {len(leaf) for leaf in jax.tree.leaves(one.z)} == {len(batch["x"])}
    np.testing.assert_allclose(log_prior, one.log_prior, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(log_likelihood, one.log_likelihood, rtol=2e-4, atol=2e-4)
    total = np.asarray(one.log_likelihood) + np.asarray(one.log_prior).sum(0) - np.asarray(one.log_posterior).sum(0)
    np.testing.assert_allclose(log_weights, total[:, None], rtol=2e-4, atol=2e-4)


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
    levels = tuple((np.flatnonzero(~difference.any(1)) + 1).tolist())
    assert levels == KL_OF_THE_DRAW.get(name, ())  # the others have a closed form, which a draw differs from
    per_level = difference.reshape(len(difference), -1)
    error = per_level.std(1) / np.sqrt(per_level.shape[1])
    assert (np.abs(per_level.mean(1)) <= 5 * error + 1e-5).all()


@pytest.mark.parametrize("name", LATENT)
def test_levels_from_the_prior_leave_those_above_alone(name):
    """Whatever the temperature below: 0 there, as q of bottom-up inference passes its mode where p draws."""
    everything = drawn(name)[0]
    model, _, params, state, batch = small(name)
    num_levels = model.latent.num_levels
    for lowest in {1, num_levels}:
        full, cut = (everything(params, jax.random.key(3), num, lowest)[2] for num in (0, lowest))
        np.testing.assert_allclose(
            cut.log_prior[: num_levels - lowest], full.log_prior[: num_levels - lowest], rtol=1e-5
        )
        assert (np.asarray(cut.log_likelihood) != np.asarray(full.log_likelihood)).any()
    nothing = jax.jit(lambda x: model.latent.infer(params, state, jax.random.key(3), {"x": x}, False))
    for a, b in zip(*(jax.tree.leaves(nothing(x).z) for x in (batch["x"], batch["x"][::-1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # the prior has not seen x


@pytest.mark.parametrize("name", ["iwae", "hvae"])
def test_what_bottom_up_inference_keeps_was_inferred_from_the_data_and_not_from_the_noise_of_levels_below(name):
    model, _, params, state, batch = made(name)
    x = jnp.repeat(batch["x"][:1], 2048, axis=0)

    @jax.jit
    def both(params, temperature):
        top, low = model.latent.infer(params, state, jax.random.key(3), {"x": x}, jnp.arange(2) < 1, temperature).z

        def log_prior(low):
            return model.latent.joint(params, state, jax.random.key(3), (top, low), {"x": x})[0].sum()

        return top, jax.grad(log_prior)(low)  # -noise / std of what p drew

    top, _ = both(params, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(top, top[:1].repeat(len(x), 0))
    top, slope = (np.asarray(a, np.float64).reshape(len(x), -1) for a in both(params, jnp.array([0.01, 1.0])))
    correlation = np.corrcoef(top, slope, rowvar=False)[: top.shape[1], top.shape[1] :]
    assert np.abs(correlation).max() < 6 / np.sqrt(len(x))


def test_bounds_of_more_draws_are_tighter_and_none_is_above_the_evidence():
    model, _, params, state, batch = made("linear_gaussian")
    weigh = jax.jit(model.log_weights, static_argnums=4)
    weights = np.asarray(weigh(params, state, jax.random.key(3), batch, 65 * 400), np.float64)
    ones, groups = weights[:, :400], weights[:, 400:].reshape(len(weights), 400, 64)  # of draws of their own
    many = np.logaddexp.reduce(groups, -1) - np.log(64)
    evidence, kl = log_evidence(params, batch["x"]), posterior_kl(params, batch["x"])
    errors = [a.std(1) / np.sqrt(400) for a in (ones, many)]
    assert (np.abs(ones.mean(1) - (evidence - kl)) < 5 * errors[0]).all()
    assert (many.mean(1) < evidence + 5 * errors[1]).all()
    assert (many.mean(1) - ones.mean(1) > 3 * np.hypot(*errors)).all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_loss_of_several_draws_is_minus_their_bound(gradient):
    _, spec, params, state, batch = made("vae")
    model, key = build(VAE | {"samples": 3, "gradient": gradient}, spec), jax.random.key(3)
    loss, weights = jax.jit(
        lambda p: (model.losses["model"](p, state, key, batch)[0], model.log_weights(p, state, key, batch, 3))
    )(params)
    bounds = np.logaddexp.reduce(np.asarray(weights, np.float64), 1) - np.log(3)
    np.testing.assert_allclose(loss, -bounds.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["vae", "ladder"])
def test_a_batch_over_many_devices_has_the_loss_and_the_gradients_of_one(name):
    model, _, params, state, batch = made(name)
    mesh = sharding.make_mesh(-1, 1)
    weights, constants = jax.device_put(partition(params["model"]), sharding.replicated(mesh))
    x = sharding.put(np.asarray(batch["x"]), sharding.batch_sharding(mesh))

    @jax.jit
    def everything(weights, x):
        def loss(w):
            return model.losses["model"]({"model": combine(w, constants)}, state, jax.random.key(3), {"x": x})[0]

        return jax.value_and_grad(loss)(weights)

    value, gradients = everything(weights, x)
    (expected, _), others = evaluated(name)[0]["model"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"kl_warmup": -1}, "kl_warmup=-1 must not be negative"),
        ({"free_nats": 1.0, "free_nats_until": -8}, "free_nats_until=-8 must not be negative"),
        ({"free_nats_until": 8}, "free_nats_until=8 needs free_nats above zero"),
        ({"balance": True}, "balance=True acts while the KL's weight grows; set kl_warmup above zero"),
    ],
)
def test_an_objective_that_would_do_nothing_is_refused(terms, message):
    hierarchy = Hierarchy(1, *(None,) * 5, shares=(1.0,))
    with pytest.raises(ValueError, match=message):
        check_objective(Objective(**terms), hierarchy)


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
    """The mean is that of the logistic where rounding and the edges cut as much on both sides."""
    raw = jnp.array([[0.2, -1.5], [-0.3, -2.0], [0.2, -9.0], [-1 / 3, -9.0], [0.0, -9.0], [0.0, -1.5]])
    output = rounded_logistic(16, -3.0)
    mass = np.exp(np.asarray(jax.vmap(lambda v: output.log_prob(raw, jnp.full((6, 1), v)))(jnp.arange(16.0))))
    np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-5)
    mean = (mass * np.arange(16)[:, None]).sum(0)[2:]
    np.testing.assert_allclose(mean, (9, 5, 7.5, 7.5), atol=1e-3)
    np.testing.assert_allclose(output.mean(raw)[2:, 0], mean, atol=1e-3)


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
