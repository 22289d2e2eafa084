"""Diffusion against data of which everything is known: x ~ N(m, diag(v)), whose best denoiser is linear.

One table of paths, one of samplers. A path adds a row to PATHS, a sampler one to SAMPLERS of its room; the tests below
then compare its constants with the closed form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.core import Denoised, Spec
from genflow.diffusion import bound, interpolants, path, prediction, transport
from genflow.distributions import normal_log_prob
from genflow.samplers import diffusion as samplers

MEAN, VARIANCE = jnp.array([0.3, -0.6]), jnp.array([0.25, 0.04])
POINTS = Spec("points", (2,), None)
PATHS = {
    "chain, linear": path.chain(path.linear_betas(1000)),
    "chain, cosine": path.chain(path.cosine_betas(200)),
    "linear interpolant": path.linear_interpolant(),
    "linear interpolant, latent noise": interpolants.with_latent_noise(path.linear_interpolant(), 1.0),
    "trigonometric interpolant": interpolants.trigonometric_interpolant(),
    "VP": path.vp_sde(),
    "sub-VP": path.sub_vp_sde(),
    "VE": path.ve_sde(),
    "EDM": path.karras(),
}


def best(p, z, t):
    """E[x | z_t] and E[eps | z_t]."""
    a, s, *_ = path.at(p, t, z.ndim)
    x = MEAN + a * VARIANCE / (a**2 * VARIANCE + s**2) * (z - a * MEAN)
    return Denoised(x, (z - a * x) / s)


def times_of(p, num=5):
    return jnp.linspace(p.start + 0.0123 * (p.end - p.start), 0.9871 * p.end, num)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_goes_from_data_to_the_prior_with_falling_signal(name):
    p = PATHS[name]
    t = jnp.linspace(p.start, p.end, 200)
    assert (np.diff(path.log_snr(p, t)) < 0).all()
    first, last = path.at(p, jnp.asarray(p.start), 2), path.at(p, jnp.asarray(p.end), 2)
    assert first.sigma / first.alpha < 0.15
    np.testing.assert_allclose(last.sigma, p.prior_std, rtol=1e-3)
    assert last.alpha * 2 < 0.15 * last.sigma


@pytest.mark.parametrize("name", PATHS)
def test_rates_are_derivatives(name):
    p = PATHS[name]
    for t in times_of(p):
        step = 2e-4 * (p.end - p.start)
        here, after, before = (path.at(p, u, 2) for u in (t, t + step, t - step))
        np.testing.assert_allclose(here.alpha_rate, (after.alpha - before.alpha) / (2 * step), rtol=0.05, atol=1e-3)
        np.testing.assert_allclose(here.sigma_rate, (after.sigma - before.sigma) / (2 * step), rtol=0.05, atol=1e-3)


def test_a_chain_is_the_product_of_its_steps():
    betas = path.linear_betas(1000)
    np.testing.assert_allclose((betas[0], betas[-1]), (1e-4, 0.02))
    alpha_bar, p = np.cumprod(1 - betas), PATHS["chain, linear"]
    for i in (1, 2, 10, 500, 1000):
        point = path.at(p, jnp.asarray(i / 1000), 2)
        np.testing.assert_allclose(point.alpha**2, alpha_bar[i - 1], rtol=2e-5)
        np.testing.assert_allclose(point.sigma**2, 1 - alpha_bar[i - 1], rtol=2e-5)


@pytest.mark.parametrize("name", PATHS)
def test_the_time_of_a_log_snr_is_where_the_path_has_it(name):
    p, t = PATHS[name], times_of(PATHS[name])
    np.testing.assert_allclose(path.time_of_log_snr(p, path.log_snr(p, t)), t, rtol=1e-3)


@pytest.mark.parametrize("kind", prediction.PREDICTIONS)
@pytest.mark.parametrize("name", PATHS)
def test_predictions_convert_into_one_another(name, kind):
    p, (key_x, key_noise) = PATHS[name], jax.random.split(jax.random.key(0))
    x, noise = jax.random.normal(key_x, (5, 3)), jax.random.normal(key_noise, (5, 3))
    t = times_of(p)
    point = path.at(p, t, 2)
    z = path.diffuse(p, t, x, noise)
    found = prediction.denoised(kind, prediction.target(kind, x, noise, point), z, point)
    ratio = point.alpha / point.sigma
    np.testing.assert_allclose(jnp.minimum(1, ratio) * (found.x - x), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.minimum(1, 1 / ratio) * (found.noise - noise), 0, atol=1e-4)


@pytest.mark.parametrize("num", [4, 30, 257])
def test_spread_numbers_are_even_from_the_first_on_and_each_is_uniform(num):
    drawn = np.stack([bound.spread(jax.random.key(i), 257)[:num] for i in range(40)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    gaps = np.diff(np.sort(drawn, axis=1), axis=1)
    assert gaps.max() < 3 / num
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=5 * 0.29 / 40**0.5)


def test_velocity_is_the_rate_of_z():
    p, t = PATHS["chain, cosine"], jnp.asarray(0.4)
    x, noise = jnp.ones((1, 2)), jnp.full((1, 2), -0.5)
    move = transport.velocity(p, Denoised(x, noise), t)
    step = 0.01
    slope = (path.diffuse(p, t + step, x, noise) - path.diffuse(p, t - step, x, noise)) / (2 * step)
    np.testing.assert_allclose(move, slope, rtol=1e-2)


@functools.cache
def transported(name):
    p = PATHS[name]
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(jax.random.key(1), (16, 2))

    @jax.jit
    def both(x):
        ask = lambda arguments, z, t: best(p, z, t)  # noqa: E731
        probes = jnp.eye(2)[:, None]
        z, log_det, calls = transport.transport_with_log_det(
            lambda _: p, ask, (), x, (p.start, p.end), probes, 1e-6, 1e-6
        )
        return z, log_det, calls, transport.transport(lambda _: p, ask, (), z, (p.end, p.start), 1e-6, 1e-6)[0]

    return x, both(x)


@pytest.mark.parametrize("name", PATHS)
def test_the_probability_flow_gives_the_exact_density_and_returns(name):
    p, (x, (z, log_det, calls, back)) = PATHS[name], transported(name)
    first, last = path.at(p, jnp.asarray(p.start), 2), path.at(p, jnp.asarray(p.end), 2)

    def marginal(point, z):  # of z_t, also at the start: sigma is not 0 there
        variance = point.alpha**2 * VARIANCE + point.sigma**2
        return normal_log_prob(z, point.alpha * MEAN, 0.5 * jnp.log(variance)).sum(1)

    np.testing.assert_allclose(marginal(last, z) + log_det, marginal(first, x), atol=5e-3)
    np.testing.assert_allclose(back, x, atol=2e-3)
    assert 10 < int(calls) < 3000


@pytest.mark.parametrize("name", PATHS)
def test_the_continuous_bound_is_the_negative_log_density_where_the_denoiser_is_the_best(name):
    """On average over x ~ p: E[bound] - H(x) is the KL of whole chains, 0 in the limit of a start at data."""
    p = PATHS[name]
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(jax.random.key(2), (20_000, 2))
    values = jax.jit(lambda key: bound.continuous_bound(POINTS, p, lambda z, t: best(p, z, t), key, x))(
        jax.random.key(3)
    )
    entropy = 0.5 * float(jnp.log(2 * jnp.pi * jnp.e * VARIANCE).sum())
    error = float(values.std()) / np.sqrt(len(x))
    prior_gap = 1e-2 + float(bound.prior_term(p, x).mean())
    assert error < 0.3
    assert -4 * error < float(values.mean()) - entropy < 4 * error + prior_gap


# sampler -> (times, spacing) after which its draws have the moments of the data
SAMPLERS = {
    "ancestral": (200, "log_snr"),
    "ancestral_small": (200, "log_snr"),
    "annealed_langevin": (20, "log_snr"),
    "ddim": (200, "log_snr"),
    "dpm_solver_pp_2m": (40, "log_snr"),
    "heun": (60, "karras"),
    "heun_churn": (100, "karras"),
    "predictor_corrector": (100, "log_snr"),
    "probability_flow": (30, "log_snr"),
    "reverse_sde": (200, "log_snr"),
}


def one_of(i, ends):
    """The i-th path, i traced: a program for all of them."""

    def pick(functions):
        return lambda t: jax.lax.switch(i, functions, jnp.asarray(t, jnp.float32))

    return path.Path(pick([p.alpha for p in PATHS.values()]), pick([p.sigma for p in PATHS.values()]), *ends)


@functools.cache
def drawn(sampler):
    """4,000 draws of each path, and two more at temperature 0."""
    num_times, spacing = SAMPLERS[sampler]
    # a chain of Langevin steps draws tens of millions, and this generator is three times as fast
    noise = jax.random.key(5, impl="rbg" if sampler == "annealed_langevin" else "threefry2x32")
    temperature = (jnp.arange(4_002) < 4_000)[:, None].astype(jnp.float32)

    @jax.jit
    def both(i, ends, times):
        p = one_of(i, ends)
        z = temperature * p.prior_std * jax.random.normal(jax.random.key(4), (4_002, 2))
        chosen = samplers.chosen(sampler)
        return samplers.draw(chosen, lambda z, t: best(p, z, t), p, times, noise, z, temperature)

    found = {}
    for i, (name, p) in enumerate(PATHS.items()):
        times, ends = samplers.spaced_times(p, num_times, spacing), (p.start, p.end, p.prior_std)
        found[name] = np.split(np.asarray(both(i, ends, times), np.float64), [4_000])
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", PATHS)
def test_a_sampler_reaches_the_distribution_of_the_data(name, sampler):
    x, cold = drawn(sampler)[name]
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.02)
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.13)
    np.testing.assert_allclose(cold, np.broadcast_to(MEAN, cold.shape), atol=0.02)
    np.testing.assert_allclose(cold, np.broadcast_to(cold[0], cold.shape), atol=1e-6)


def test_every_sampler_has_a_row():
    assert {*SAMPLERS, "ancestral_learned"} == set(samplers.SAMPLERS)  # which test_samplers has, it needs variances
