"""Samplers of diffusion models beyond their limit: orders, variances, times, guidance, what is known, progress."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from genflow.core import Denoised, Spec
from genflow.diffusion import guidance, path
from genflow.distributions import normal_log_prob
from genflow.models.flow_matching import flow_matching
from genflow.samplers import diffusion as samplers
from genflow.samplers import steps
from genflow.samplers.times import spaced_times

EDM, VP, COSINE = path.karras(), path.vp_sde(), path.chain(path.cosine_betas(20))
MEAN, VARIANCE = 0.4, 0.09


def of_normal(p, mean=MEAN, variance=VARIANCE):
    """The best denoiser of N(mean, variance)."""

    def denoise(z, t):
        a, s, *_ = path.at(p, t, z.ndim)
        x = mean + a * variance / (a**2 * variance + s**2) * (z - a * mean)
        return Denoised(x, (z - a * x) / s)

    return denoise


# Deterministic samplers. Name -> order of the method, path, spacing, numbers of times.
ORDERS = {
    "ddim": (1, EDM, "log_snr", (65, 129)),
    "dpm_solver_pp_2m": (2, VP, "log_snr", (65, 129)),
    "heun": (2, EDM, "karras", (33, 65)),
    "probability_flow": (4, VP, "linear", (17, 33)),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_by_the_order_of_the_method(name):
    order, p, spacing, nums = ORDERS[name]
    z, errors = p.prior_std * jnp.linspace(-1.5, 1.5, 7)[:, None], []
    first, last = path.at(p, jnp.asarray(p.start), 2), path.at(p, jnp.asarray(p.end), 2)
    std = [jnp.sqrt(point.alpha**2 * VARIANCE + point.sigma**2) for point in (first, last)]
    carried = first.alpha * MEAN + std[0] / std[1] * (z - last.alpha * MEAN)  # by the probability flow
    exact = of_normal(p)(carried, jnp.asarray(p.start)).x
    for num in nums:
        times = spaced_times(p, num, spacing)
        found = samplers.draw(samplers.chosen(name), of_normal(p), p, times, jax.random.key(0), z)
        errors.append(np.abs(np.asarray(found - exact)).max())
    assert 0.75 * 2**order < errors[0] / errors[1] < 1.4 * 2**order
    assert errors[1] < 0.02


def test_the_command_line_knows_every_sampler_and_spacing():
    assert common.CHOICES["model.sampler"] == tuple(samplers.SAMPLERS)
    assert common.CHOICES["model.spacing"] == tuple(samplers.SPACINGS)


def test_every_sampler_without_noise_has_an_order():
    assert set(ORDERS) == {name for name, build in samplers.SAMPLERS.items() if not build().random}


def with_variance(p, denoise, variance):
    """A denoiser that says the variance of q(z_near | z_t) of normal data, near the step before t."""

    def denoised(z, t):
        (a, s, *_), (a_near, s_near, *_) = path.at(p, t, z.ndim), path.at(p, t - p.end / p.grid, z.ndim)
        at_near = a_near**2 * variance + s_near**2
        reverse = at_near * (1 - (a / a_near) ** 2 * at_near / (a**2 * variance + s**2))
        return denoise(z, t)._replace(log_variance=jnp.log(reverse))

    return denoised


# name -> variance of the data for which its noise is exactly right, however long the steps; the number of times
RIGHT = {"ancestral": (1.0, 4), "ancestral_small": (0.0, 4), "ancestral_learned": (0.3, 20)}


@pytest.mark.parametrize("name", RIGHT)
def test_the_variance_of_a_step_is_right_for_its_data(name):
    variance, num = RIGHT[name]
    denoise = with_variance(COSINE, of_normal(COSINE, 0.0, variance), variance)
    times, z = spaced_times(COSINE, num), jax.random.normal(jax.random.key(0), (100_000, 1))
    last, first = (path.at(COSINE, jnp.asarray(t), 2) for t in (COSINE.end, COSINE.start))
    z = z * jnp.sqrt(last.alpha**2 * variance + last.sigma**2)
    noisy = lambda z, t: denoise(z, t)._replace(x=z)  # noqa: E731  z_start itself is what is drawn

    @jax.jit
    def drawn(key):
        chosen = samplers.chosen(name)
        step = lambda _, path, *rest: chosen.step(denoise, path, *rest)  # noqa: E731
        return samplers.draw(chosen._replace(step=step), noisy, COSINE, times, key, z)

    wanted = first.alpha**2 * variance + first.sigma**2
    np.testing.assert_allclose(np.asarray(drawn(jax.random.key(1))).var(), wanted, rtol=0.015)


def test_a_learned_variance_between_the_bounds_holds_for_longer_steps():
    """Half way between, in logs, on the grid and on any subset of it."""
    z, (t, near, s) = jnp.ones((2, 1)), (jnp.asarray(i / 20) for i in (12, 11, 7))
    denoise = of_normal(COSINE)

    def half(z, t):
        bounds = steps.reverse(COSINE, z, z, t, t - 1 / 20)
        return denoise(z, t)._replace(log_variance=0.5 * jnp.log(bounds.small * bounds.large))

    for target in (near, s):
        own = steps.reverse(COSINE, denoise(z, t).x, z, t, target)
        arguments = (COSINE, jax.random.key(2), z, t, target, ())
        drawn, mean = (samplers.chosen("ancestral_learned").step(half, *arguments, heat)[0] for heat in (1.0, 0.0))
        noise = jax.random.normal(jax.random.key(2), z.shape)
        np.testing.assert_allclose(mean, own.mean, rtol=1e-5)
        np.testing.assert_allclose((drawn - mean) / noise, (own.small * own.large) ** 0.25, rtol=1e-4)


@pytest.mark.parametrize("p", [COSINE, VP, EDM])
def test_ddim_with_all_its_noise_is_ancestral_sampling_with_the_small_variance(p):
    z, t, s = p.prior_std * jnp.ones((3, 2)), jnp.asarray(0.6 * p.end), jnp.asarray(0.4 * p.end)
    arguments = (of_normal(p), p, jax.random.key(0), z, t, s, (), 1.0)
    one, other = steps.ddim(1.0).step(*arguments)[0], steps.ancestral_small().step(*arguments)[0]
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_the_corrector_is_a_langevin_step_of_the_signal_to_noise_ratio():
    z, t, s = jax.random.normal(jax.random.key(0), (50_000, 2)), jnp.asarray(0.6), jnp.asarray(0.59)
    arguments = (of_normal(VP), VP)
    key_predictor, key_noise = jax.random.split(jax.random.key(1))
    predicted = steps.ancestral().step(*arguments, key_predictor, z, t, s, (), 1.0)[0]
    both = steps.predictor_corrector(0.1).step(*arguments, jax.random.key(1), z, t, s, (), 1.0)[0]
    score = -of_normal(VP)(predicted, s).noise / path.at(VP, s, 2).sigma
    noise = jax.random.normal(key_noise, z.shape)
    size = np.linalg.lstsq(np.asarray(score).reshape(-1, 1), np.asarray(both - predicted).reshape(-1))[0][0]
    norms = [np.linalg.norm(a, axis=1).mean() for a in (noise, score)]
    ratio = (path.at(VP, t, 2).alpha / path.at(VP, s, 2).alpha) ** 2
    wanted = 2 * ratio * (0.1 * norms[0] / norms[1]) ** 2
    np.testing.assert_allclose(both - predicted, wanted * score + np.sqrt(2 * wanted) * noise, atol=1e-5)
    np.testing.assert_allclose(size, wanted, rtol=0.1)


def test_churn_raises_the_noise_by_its_factor_and_only_within_its_range():
    """Of data that are one point, x, heun is exact: what is left of z is the noise that was put in."""
    x, z = 0.5, jnp.zeros((20_000, 1)) + 0.5
    for t, raised in ((2.0, 0.3), (0.01, 0.0), (70.0, 0.0)):
        step = steps.heun_churn(churn=3.0, lowest=0.05, highest=50.0, scale=1.1)
        memory = step.start(z, 10)
        s = jnp.asarray(0.5 * t)
        moved = step.step(of_normal(EDM, x, 0.0), EDM, jax.random.key(0), z, jnp.asarray(t), s, memory, 1.0)[0]
        added = 1.1 * t * np.sqrt((1 + raised) ** 2 - 1)  # EDM, algorithm 2, line 6
        np.testing.assert_allclose(np.asarray(moved).std(), added * 0.5 / (1 + raised), rtol=0.02, atol=1e-6)
    assert float(steps.heun_churn(churn=1000.0).start(z, 10)) == pytest.approx(2**0.5 - 1)


@pytest.mark.parametrize("spacing", samplers.SPACINGS)
def test_times_fall_from_end_to_start_and_fill_a_grid(spacing):
    for p in (EDM, VP, COSINE, path.linear_interpolant()):
        times = np.asarray(spaced_times(p, 13, spacing))
        np.testing.assert_allclose(times[[0, -1]], (p.end, p.start), rtol=1e-6)
        assert (np.diff(times) < 0).all()
    np.testing.assert_allclose(np.asarray(spaced_times(COSINE, 13, spacing)) * 20 % 1, 0, atol=1e-5)
    np.testing.assert_allclose(spaced_times(COSINE, 20, spacing), np.arange(20, 0, -1) / 20)
    with pytest.raises(ValueError, match="21 times: this path has only 20"):
        spaced_times(COSINE, 21, spacing)


def test_spacings_are_those_of_their_papers():
    karras = (80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(spaced_times(EDM, 18, "karras"), karras, rtol=1e-4)
    widths = np.diff(path.log_snr(VP, spaced_times(VP, 10, "log_snr")))
    np.testing.assert_allclose(widths, widths.mean(), rtol=0.02)
    np.testing.assert_allclose(spaced_times(VP, 11, "linear"), np.linspace(1, 1e-5, 11), rtol=1e-5)
    np.testing.assert_allclose(spaced_times(VP, 11, "quadratic")[:-1], np.linspace(1, 0, 11)[:-1] ** 2, rtol=2e-3)
    chain = path.chain(path.linear_betas(1000))
    np.testing.assert_allclose(
        spaced_times(chain, 6, "quadratic"), np.round(np.linspace(999, 0, 6) ** 2 / 999 + 1) / 1e3
    )


# A mixture of two normal distributions: classes, their means and variances, their shares.
MEANS, VARIANCES, SHARES = jnp.array([-1.0, 1.5]), jnp.array([0.25, 0.04]), jnp.array([0.3, 0.7])


def class_log_prob(p, z, t):
    """Log p(z_t, y) of z [B, 1] as [B, 2]."""
    a, s, *_ = path.at(p, t, 2)
    return jnp.log(SHARES) + normal_log_prob(z, a * MEANS, 0.5 * jnp.log(a**2 * VARIANCES + s**2))


def of_mixture(p, z, t, c):
    """The best denoiser given a class, one-hot; zeros: given none."""
    a, s, *_ = path.at(p, t, 2)
    means = MEANS + a * VARIANCES / (a**2 * VARIANCES + s**2) * (z - a * MEANS)
    weights = jnp.where(c.sum(1, keepdims=True) > 0, c, jax.nn.softmax(class_log_prob(p, z, t)))
    x = (weights * means).sum(1, keepdims=True)
    return Denoised(x, (z - a * x) / s)


def posterior(p, z, t):
    """Log p(y = 1 | z_t)."""
    return jax.nn.log_softmax(class_log_prob(p, z, t))[:, 1]


def ways(p, num):
    """Denoisers of class 1: given it, guided by itself, by the classifier, and by none."""
    c = jnp.zeros((num, 2)).at[:, 1].set(1.0)
    free = lambda z, t: of_mixture(p, z, t, 0 * c)  # noqa: E731
    return {
        "conditional": lambda z, t: of_mixture(p, z, t, c),
        "classifier-free": guidance.classifier_free(functools.partial(of_mixture, p), c, 0.0),
        "classifier": guidance.classifier_guided(free, p, functools.partial(posterior, p)),
    }


@pytest.mark.parametrize("p", [VP, EDM, path.linear_interpolant()])
def test_guidance_is_the_gradient_of_the_sharpened_class(p):
    """grad log p(z | y) + w grad log p(y | z), by either guidance."""
    t, num = jnp.asarray(0.3 * p.end), 40
    z = path.at(p, t, 2).sigma * jnp.linspace(-2, 2, num)[:, None]
    given = ways(p, num)
    for name in ("classifier-free", "classifier"):
        for one, other in zip(given["conditional"](z, t)[:2], given[name](z, t)[:2], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-4)
    c = jnp.zeros((num, 2)).at[:, 1].set(1.0)
    sharp = guidance.classifier_free(functools.partial(of_mixture, p), c, 1.5)
    pushed = guidance.classifier_guided(given["conditional"], p, functools.partial(posterior, p), 1.5)
    log_prob = lambda z: (class_log_prob(p, z, t)[:, 1] + 1.5 * posterior(p, z, t)).sum()  # noqa: E731
    a, s, *_ = path.at(p, t, 2)
    for found in (sharp(z, t), pushed(z, t)):
        np.testing.assert_allclose(-found.noise / s, jax.grad(log_prob)(z), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(a * found.x + s * found.noise, z, atol=1e-4)


@pytest.mark.parametrize("way", ["classifier-free", "classifier"])
def test_guided_samples_follow_the_class(way):
    times = spaced_times(VP, 60, "log_snr")

    @jax.jit
    def drawn(key):
        z = jax.random.normal(key, (4_000, 1))
        return samplers.draw(samplers.chosen("dpm_solver_pp_2m"), ways(VP, 4_000)[way], VP, times, key, z)

    x = np.asarray(drawn(jax.random.key(0)))
    np.testing.assert_allclose(x.mean(), MEANS[1], atol=0.02)
    np.testing.assert_allclose(x.var(), VARIANCES[1], rtol=0.1)


# x ~ N(0, [[1, r], [r, 1]]): given x_1, x_2 ~ N(r x_1, 1 - r^2).
CORRELATION = 0.8


def of_correlated(p):
    covariance = jnp.array([[1.0, CORRELATION], [CORRELATION, 1.0]])

    def denoise(z, t):
        a, s, *_ = path.at(p, t, 2)
        x = z @ (a * covariance @ jnp.linalg.inv(a**2 * covariance + s**2 * jnp.eye(2))).T
        return Denoised(x, (z - a * x) / s)

    return denoise


def completed(resample, num_times=60, name="ancestral", num=2_000):
    given = jnp.full((num, 2), 1.2)
    known = samplers.Known(given, jnp.array([True, False]), resample)

    @jax.jit
    def drawn(key):
        times, z = spaced_times(VP, num_times, "log_snr"), jax.random.normal(key, (num, 2))
        return samplers.draw(samplers.chosen(name), of_correlated(VP), VP, times, key, z, known=known)

    return np.asarray(drawn(jax.random.key(0)), np.float64)


def test_what_is_known_stays_and_the_rest_follows_from_it_as_steps_are_repeated():
    mean, variance = 1.2 * CORRELATION, 1 - CORRELATION**2
    plain, repeated = completed(resample=1), completed(resample=25)
    for x in (plain, repeated):
        np.testing.assert_array_equal(x[:, 0], np.float32(1.2))
    np.testing.assert_allclose(repeated[:, 1].mean(), mean, atol=0.06)
    np.testing.assert_allclose(repeated[:, 1].var(), variance, rtol=0.12)
    assert plain[:, 1].mean() < mean - 0.2  # replacement alone is not exact


def test_a_sampler_that_remembers_forgets_where_something_is_known():
    x = completed(resample=20, num_times=50, name="dpm_solver_pp_2m")
    np.testing.assert_allclose(x[:, 1].mean(), 1.2 * CORRELATION, atol=0.08)
    assert x[:, 1].var() < 0.5


@pytest.mark.parametrize(("num_steps", "reported"), [(120, [*range(2, 121, 2)]), (3, [1, 2, 3])])
def test_a_loop_reports_its_progress(num_steps, reported):
    heard, times = [], spaced_times(VP, num_steps + 1)

    @jax.jit
    def drawn(key, z):
        progress = lambda done, num: heard.append((done, num))  # noqa: E731
        return samplers.draw(samplers.chosen("ddim"), of_normal(VP), VP, times, key, z, progress=progress)

    drawn(jax.random.key(0), jnp.ones((2, 1))).block_until_ready()
    jax.effects_barrier()
    assert sorted(heard) == [(done, num_steps) for done in reported]


POINTS = Spec("points", (2,), None, num_classes=2)
SMALL = {"width": 8, "blocks": 1, "sampler_steps": 3}


@functools.cache
def small(**options):
    model = flow_matching(POINTS, **SMALL, conditional=True, drop_condition=0.1, **options)
    batch = {"x": jnp.ones((4, 2)), "label": jnp.array([0, 1, 0, 1])}
    params, state = model.init(jax.random.key(0), batch)
    return model, jax.tree.map(lambda a: a + 0.1, params), state, batch


def test_a_model_draws_as_it_is_asked():
    model, params, state, batch = small()
    label = {"label": batch["label"]}

    def drawn(**how):
        return np.asarray(model.diffusion.draw(params, state, jax.random.key(0), 4, label, **how))

    plain = drawn()
    for how in ({"guidance": 2.0}, {"sampler": "heun"}, {"num_steps": 5}, {"spacing": "karras"}):
        assert np.abs(drawn(**how) - plain).min() > 1e-6, how
    np.testing.assert_array_equal(drawn(guidance=0.0, sampler="ddim", num_steps=3, spacing="linear"), plain)
    pulled = drawn(classifier=lambda z, t: -0.5 * (z[:, 0] - 3.0) ** 2)
    assert (pulled[:, 0] > plain[:, 0]).all()


def test_a_model_completes_what_is_known():
    model, params, state, batch = small()
    known = jnp.array([True, False])
    complete = functools.partial(model.complete, params, state, jax.random.key(0), batch["x"], known)
    x = np.asarray(complete({"label": batch["label"]}, resample=2))
    np.testing.assert_array_equal(x[:, 0], 1.0)
    assert (x[:, 1] != 1.0).all()
    for options in ({"top_k": 3}, {"top_p": 0.5}, {"method": "naive"}, {"num_sites": 1}):
        with pytest.raises(ValueError, match="are for models that draw sites in order"):
            complete(**options)
    with pytest.raises(ValueError, match="resample=0: expected 1 or more"):
        complete(resample=0)


def test_what_a_model_cannot_do_is_refused():
    with pytest.raises(ValueError, match="has learned no variance of a chain's steps; take 'ancestral'"):
        small(sampler="ancestral_learned")
    with pytest.raises(ValueError, match="spacing='cosine': expected one of linear, quadratic"):
        small(spacing="cosine")
    model, params, state, _ = small()
    refused = {
        "sampler='euler': expected one of ancestral, ancestral_learned": {"sampler": "euler"},
        "has learned no variance": {"sampler": "ancestral_learned"},
        "spacing='cosine': expected one of": {"spacing": "cosine"},
        "a diffusion model has one temperature": {"temperature": (0.5, 1.0)},
    }
    for message, how in refused.items():
        with pytest.raises(ValueError, match=message):
            model.diffusion.draw(params, state, jax.random.key(0), 4, **how)
    model = flow_matching(POINTS, **SMALL, conditional=True)
    with pytest.raises(ValueError, match="guidance=2.0 needs a model that was trained with and without conditions"):
        model.sample(params, state, jax.random.key(0), 4, guidance=2.0)
