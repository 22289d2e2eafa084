"""DDPM against its two algorithms as printed, and its bound against chains of which everything is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from genflow.analysis import variational_bound
from genflow.core import Network, Spec
from genflow.data.dataset import in_memory
from genflow.diffusion import chain_bound, prediction
from genflow.diffusion import path as paths
from genflow.errors import UserError
from genflow.models import build
from genflow.models.ddpm import (
    HYBRID_WEIGHT,
    chain_process,
    draw_steps,
    empty_history,
    remember,
    step_probabilities,
)
from genflow.report.diffusion import bound_terms
from genflow.samplers import diffusion as samplers

POINTS = Spec("points", (2,), None)
MEAN, VARIANCE = np.array([0.3, -0.6]), np.array([0.25, 0.04])
BETAS = np.linspace(0.005, 0.25, 20)  # not quite to noise: the prior costs something
BETA = np.concatenate([[0], BETAS])
ALPHA_BAR = np.cumprod(1 - BETA)
STEPS = np.arange(1, 21)


def network_of(apply):
    return Network(lambda key, x, cond=None: {}, lambda params, z, cond, key=None: apply(z, *cond))


def column(a):
    return jnp.asarray(a)[:, None]


# The two algorithms


def test_training_is_algorithm_1():
    """For eps_theta(z, t) = t z, E ||eps - eps_theta||^2 = (1 - t sigma)^2 + (t alpha x)^2 a dimension."""
    network = network_of(lambda z, t, c: column(t) * z)
    process, _ = chain_process(POINTS, network, BETAS)
    x = np.array([[0.8, -0.5]])
    t, alpha, sigma = STEPS / 20, np.sqrt(ALPHA_BAR[1:]), np.sqrt(1 - ALPHA_BAR[1:])
    expected = ((1 - t * sigma) ** 2 + (t * alpha) ** 2 * (x**2).mean()).mean()
    values, _, metrics = jax.jit(process.loss)({}, {}, jax.random.key(0), jnp.repeat(x, 100_000, axis=0), None)
    np.testing.assert_allclose(values.mean(), expected, rtol=0.01)
    np.testing.assert_allclose(metrics["simple_loss"], values.mean(), rtol=1e-6)


@pytest.mark.parametrize("schedule", paths.BETAS)
def test_sampling_is_algorithm_2(schedule):
    num_steps, key, size = 30, jax.random.key(1), (4, 3)
    beta = np.concatenate([[0], paths.BETAS[schedule](num_steps)])
    alpha_bar = np.cumprod(1 - beta)
    p = paths.chain(beta[1:])

    def eps_theta(z, t):
        return z / (0.5 + z**2) * (1 + t)

    def denoise(z, t):
        point = paths.at(p, t, z.ndim)
        return prediction.denoised("noise", eps_theta(z, t), z, point)

    start = jax.random.normal(key, size)
    noises = jax.vmap(lambda key: jax.random.normal(key, size))(jax.random.split(key, num_steps - 1))
    x, noises = np.asarray(start), np.concatenate([noises, np.zeros((1, *size))])
    for t, noise in zip(range(num_steps, 0, -1), noises, strict=True):
        a, direction = 1 - beta[t], eps_theta(x, t / num_steps)
        x = (x - (1 - a) / np.sqrt(1 - alpha_bar[t]) * direction) / np.sqrt(a) + np.sqrt(beta[t]) * noise
    times = samplers.spaced_times(p, num_steps)
    found = samplers.draw(samplers.SAMPLERS["ancestral"](), denoise, p, times, key, start)
    np.testing.assert_allclose(found, x, rtol=2e-3, atol=2e-3)


# Chains of which everything is known: x ~ N(MEAN, diag(VARIANCE)), whose best denoiser is linear


def gain():
    """E[x | z_i] = MEAN + gain (z_i - alpha MEAN), and Var[x | z_i]; [T + 1, 2]."""
    signal, noise = ALPHA_BAR[:, None], 1 - ALPHA_BAR[:, None]
    total = signal * VARIANCE + noise
    return np.sqrt(signal) * VARIANCE / total, VARIANCE * noise / total


@functools.cache
def gaussian(variance):
    """The process of the best denoiser; of a learned variance, 0.3 of the way from the small one to the large."""
    gains = jnp.asarray(gain()[0], jnp.float32)

    def best(z, t, c):
        i = jnp.round(20 * t).astype(int)
        x = MEAN + gains[i] * (z - column(jnp.sqrt(jnp.asarray(ALPHA_BAR, jnp.float32)[i])) * MEAN)
        return jnp.concatenate([x, jnp.full_like(x, 2 * 0.3 - 1)], -1) if variance == "learned" else x

    objective = "hybrid" if variance == "learned" else "simple"
    return chain_process(POINTS, network_of(best), BETAS, "data", objective, variance)


def reverse_variance(variance):
    """[T + 1], and the variance of q(z_(i-1) | z_i, x), as the paper has them; entry 0 is not used."""
    before = np.concatenate([[0], ALPHA_BAR[:-1]])
    with np.errstate(invalid="ignore"):
        posterior = BETA * (1 - before) / (1 - ALPHA_BAR)
    small = np.where(np.arange(21) == 1, posterior[2], posterior)
    if variance == "learned":
        return np.exp(0.3 * np.log(BETA + 1e-30) + 0.7 * np.log(small)), posterior
    return (small, posterior) if variance == "small" else (np.where(np.arange(21) == 1, small, BETA), posterior)


def expected_terms(variance):
    """Of the best denoiser on average over the data, in closed form; [T + 1]."""
    p_variance, q_variance = reverse_variance(variance)
    end, left = ALPHA_BAR[-1], gain()[1]
    prior = 0.5 * (end * (MEAN**2 + VARIANCE) + (1 - end) - 1 - np.log(1 - end)).sum()
    terms = [prior, 0.5 * (np.log(2 * np.pi * p_variance[1]) + left[1] / p_variance[1]).sum()]
    for i in range(2, 21):
        of_x = np.sqrt(ALPHA_BAR[i - 1]) * BETA[i] / (1 - ALPHA_BAR[i])
        ratio = (q_variance[i] + of_x**2 * left[i]) / p_variance[i]
        terms.append(0.5 * (ratio - 1 + np.log(p_variance[i] / q_variance[i])).sum())
    return np.array(terms)


def all_terms(process, key, x):
    return jax.jit(lambda: jax.lax.map(lambda i: process.terms({}, key, x, None, i), jnp.arange(21)))()


def data(num):
    return MEAN + np.sqrt(VARIANCE) * jax.random.normal(jax.random.key(7), (num, 2))


@pytest.mark.parametrize("variance", chain_bound.VARIANCES)
def test_every_term_of_the_bound_has_its_closed_form(variance):
    process, _ = gaussian(variance)
    x = data(100_000)
    found = all_terms(process, jax.random.key(2), x)
    expected = expected_terms(variance)
    error = np.asarray(found.std(1)) / np.sqrt(len(x))
    assert (np.abs(found.mean(1) - expected) < 4 * error).all()
    assert (error < 0.01).all()
    one = jax.jit(process.bound)({}, {}, jax.random.key(3), x, None)
    loss, _, metrics = jax.jit(process.loss)({}, {}, jax.random.key(3), x, None)
    np.testing.assert_allclose(one.mean(), expected.sum(), atol=4 * float(one.std()) / 316)
    assert abs(metrics["nll"] - expected.sum()) < 0.05 * expected.sum()  # at steps of equal chances
    assert loss.shape == (100_000,)


@pytest.mark.parametrize("variance", chain_bound.VARIANCES)
def test_minus_the_mean_log_weight_is_the_sum_of_the_terms(variance):
    _, log_weights = gaussian(variance)
    weights = jax.jit(log_weights, static_argnums=4)({}, jax.random.key(4), data(50_000), None, 2)
    assert weights.shape == (50_000, 2)
    assert (weights[:, 0] != weights[:, 1]).any()
    expected = expected_terms(variance).sum()
    np.testing.assert_allclose(-weights.mean(), expected, atol=4 * float(weights.std()) / 300)


def exact_log_prob(x):
    """log p(x) of the chain back with small variances: every step is linear and Gaussian."""
    gains, mean, spread = gain()[0], np.zeros(2), np.ones(2)
    variance = reverse_variance("small")[0]
    for i in range(20, 0, -1):
        of_x = np.sqrt(ALPHA_BAR[i - 1]) * BETA[i] / (1 - ALPHA_BAR[i])
        of_z = np.sqrt(1 - BETA[i]) * (1 - ALPHA_BAR[i - 1]) / (1 - ALPHA_BAR[i])
        slope = of_z + of_x * gains[i]
        mean = slope * mean + of_x * (MEAN - gains[i] * np.sqrt(ALPHA_BAR[i]) * MEAN)
        spread = slope**2 * spread + variance[i]
    return norm.logpdf(x, mean, np.sqrt(spread)).sum(-1)


def test_the_mean_weight_is_the_density_and_the_bound_is_below_it():
    process, log_weights = gaussian("small")
    x = np.array([[0.3, -0.6], [1.0, -0.4], [-0.5, -0.9]])
    weights = jax.jit(log_weights, static_argnums=4)({}, jax.random.key(5), jnp.asarray(x), None, 20_000)
    estimate = jax.nn.logsumexp(weights, axis=1) - np.log(20_000)
    np.testing.assert_allclose(estimate, exact_log_prob(x), atol=0.03)
    bound = (
        np.asarray(all_terms(process, jax.random.key(6), jnp.repeat(x, 2_000, axis=0))).sum(0).reshape(3, -1).mean(1)
    )
    assert (bound > -exact_log_prob(x) + 0.01).all()


# The decoder


@pytest.mark.parametrize(("bins", "std"), [(2, 0.5), (17, 0.02), (17, 0.3), (256, 0.005), (256, 1.0)])
def test_the_discretized_decoder_is_the_normal_mass_of_each_bin(bins, std):
    values, means = np.linspace(-1, 1, bins), np.array([-1.4, -0.32, 0.0, 0.9])
    scored = jax.jit(chain_bound.discretized_normal_log_prob, static_argnums=3)
    found = np.asarray(scored(values, means[:, None], np.log(std), bins), np.float64)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-4)
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    mass = np.diff(norm.cdf(edges, means[:, None], std))
    seen = mass > 1e-10
    np.testing.assert_allclose(found[seen], np.log(mass[seen]), rtol=2e-3, atol=2e-3)


def test_the_decoder_is_finite_with_its_slope_however_far_off():
    def value(mean):
        return chain_bound.discretized_normal_log_prob(jnp.linspace(-1, 1, 5), mean, jnp.log(0.01), 256).sum()

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(value)))(jnp.array([-30.0, -1.0, 0.2, 30.0]))
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert (np.sign(slopes[jnp.array([0, 3])]) == [1, -1]).all()


# What is learned


def test_a_learned_variance_goes_from_the_posterior_variance_to_beta():
    constants = chain_bound.chain_of(BETAS)
    for v, name in ((0.0, "small"), (1.0, "large")):
        found = np.exp(chain_bound.reverse_log_variance(constants, "learned", v)(np.arange(2, 21)))
        np.testing.assert_allclose(found, reverse_variance(name)[0][2:], rtol=1e-5)
    between = chain_bound.reverse_log_variance(constants, "learned", 0.3)(jnp.arange(1, 21))
    np.testing.assert_allclose(np.exp(between), reverse_variance("learned")[0][1:], rtol=1e-5)


@functools.cache
def gradients(objective):
    """Of the loss with respect to a slope of the mean and one of the variance."""

    def apply(params, z, cond, key=None):
        return jnp.concatenate([params["mean"] * z, params["variance"] * z], axis=-1)

    network = Network(lambda *_: {}, apply)
    process, _ = chain_process(POINTS, network, BETAS, "noise", objective, "learned")
    params = {"mean": jnp.asarray(0.7), "variance": jnp.asarray(0.2)}
    return jax.jit(jax.grad(lambda p: process.loss(p, {}, jax.random.key(0), data(64), None)[0].mean()))(params)


def test_the_hybrid_loss_teaches_the_mean_by_the_simple_one_and_the_variance_by_the_bound():
    hybrid, bound, simple = (gradients(objective) for objective in ("hybrid", "vlb", "simple"))
    np.testing.assert_allclose(hybrid["mean"], simple["mean"], rtol=1e-5)
    np.testing.assert_allclose(hybrid["variance"], HYBRID_WEIGHT * bound["variance"], rtol=1e-5)
    assert abs(bound["mean"] - simple["mean"]) > 0.01
    assert simple["variance"] == 0
    assert bound["variance"] != 0


def filled(sizes):
    return {"terms": jnp.asarray(sizes)[:, None] * jnp.ones(10), "counts": jnp.full(len(sizes), 10)}


def test_drawn_steps_with_their_weights_are_unbiased():
    sizes = np.array([5.0, 0.1, 0.0, 2.0, 1.0])
    probabilities = step_probabilities(filled(sizes))
    np.testing.assert_allclose(probabilities, 0.999 * sizes / sizes.sum() + 0.001 / 5, rtol=1e-5)
    i = np.asarray(draw_steps(jax.random.key(0), 200_000, probabilities))
    weights = 1 / (5 * np.asarray(probabilities)[i - 1])
    f = np.array([3.0, -1.0, 4.0, 1.0, 7.0])
    np.testing.assert_allclose((weights * f[i - 1]).mean(), f.mean(), rtol=0.01)
    np.testing.assert_allclose(np.bincount(i, minlength=6)[1:] / len(i), probabilities, atol=1e-4)
    few = np.bincount(i[:50], minlength=6)[1:] / 50
    np.testing.assert_allclose(few, probabilities, atol=0.06)


def test_the_loss_with_drawn_steps_is_that_with_uniform_ones():
    network = network_of(lambda z, t, c: column(t) * z)
    plain, _ = chain_process(POINTS, network, BETAS, objective="vlb")
    drawn, _ = chain_process(POINTS, network, BETAS, objective="vlb", importance_times=True)
    x, history = data(100_000), filled(np.linspace(1.0, 3.0, 20, dtype=np.float32))
    expected = jax.jit(plain.loss)({}, {}, jax.random.key(0), x, None)
    found = jax.jit(drawn.loss)({}, history, jax.random.key(1), x, None)
    np.testing.assert_allclose(found[0].mean(), expected[0].mean(), rtol=0.02)
    for name in ("nll", "simple_loss"):
        np.testing.assert_allclose(found[2][name], expected[2][name], rtol=0.02)
    assert (found[1]["counts"] > 10).all()


def test_the_history_is_that_of_terms_that_come_one_after_another():
    rng, history = np.random.default_rng(0), empty_history(4)
    expected = [[], [], [], []]
    step = jax.jit(remember)
    for _ in range(5):
        i, terms = rng.choice(4, 25, p=[0.7, 0.2, 0.1, 0.0]) + 1, rng.normal(size=25).astype(np.float32)
        for step_of, term in zip(i, terms, strict=True):
            expected[step_of - 1].append(term)
        history = step(history, jnp.asarray(i), jnp.asarray(terms))
    np.testing.assert_array_equal(history["counts"], [len(row) for row in expected])
    for row, kept in zip(expected, history["terms"], strict=True):
        assert sorted(row[-10:]) == pytest.approx(sorted(np.asarray(kept))[: len(row)] if row else [])
    np.testing.assert_allclose(step_probabilities(history), 0.25)  # of one step there is none yet


# The exact bound of a model


def test_the_exact_bound_is_the_mean_of_its_terms_and_that_of_one_at_random():
    section = {"name": "ddpm", "num_steps": 6, "schedule": "cosine", "sampler_steps": 6, "width": 8, "blocks": 1}
    model = build(section, POINTS)
    x = np.asarray(data(40), np.float32)
    params, state = jax.jit(model.init)(jax.random.key(0), {"x": x})
    found = variational_bound.terms(model, POINTS, params, state, jax.random.key(1), in_memory(x), 16, 40)
    assert found.values.shape == (7, 40)
    assert found.unit == "nats"
    parts = found.parts()
    prior, chain, decoder, bound = (parts[f"{name}, nats"][0] for name in ("prior", "chain", "decoder", "bound"))
    np.testing.assert_allclose(bound, prior + chain + decoder, rtol=1e-6)
    np.testing.assert_allclose([prior, decoder], found.means[:2], rtol=1e-6)
    many = np.repeat(x, 500, axis=0)
    draws = jax.jit(model.log_prob)(params, state, jax.random.key(2), {"x": many})
    error = np.hypot(parts["bound, nats"][1], float(draws.std()) / np.sqrt(len(many)))
    assert abs(bound + float(draws.mean())) < 4 * error
    np.testing.assert_allclose(found.errors, found.values.std(1, ddof=1) / np.sqrt(40))
    picture = bound_terms(found.means, found.errors, found.unit)
    assert len(picture.rows[""].axes[0].lines[0].get_xdata()) == (found.means[1:] > 0).sum()


def test_a_model_without_a_chain_has_no_terms():
    model = build({"name": "flow_matching", "width": 8, "blocks": 1}, POINTS)
    with pytest.raises(ValueError, match="needs a diffusion model with a chain of steps"):
        variational_bound.terms(model, POINTS, {}, {}, None, in_memory(np.zeros((4, 2))), 4, 4)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"schedule": "quadratic"}, "schedule='quadratic': expected one of linear, cosine"),
        ({"prediction": "score"}, "prediction='score': expected one of noise, data, v"),
        ({"objective": "L_simple"}, "objective='L_simple': expected one of"),
        ({"variance": "huge"}, "variance='huge': expected one of"),
        ({"variance": "learned"}, "set that to 'hybrid' or 'vlb'"),
        ({"objective": "hybrid"}, "set variance='learned', not 'large'"),
        ({"num_steps": 100}, "sampler_steps=1000: the chain has num_steps=100"),
        ({"num_steps": 1, "sampler_steps": 1}, "num_steps=1: a chain has 2 steps or more"),
    ],
)
def test_what_does_not_go_together_is_refused(section, message):
    with pytest.raises(UserError, match=message):
        build({"name": "ddpm"} | section, POINTS)
