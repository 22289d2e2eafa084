"""Noise conditional score networks against normal data, annealed Langevin dynamics against its own moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.core import Denoised, Network, Spec
from genflow.diffusion.path import at, ve_sde
from genflow.errors import UserError
from genflow.models import build
from genflow.models.ncsn import noise_conditional, noise_ladder, sliced_score_matching
from genflow.networks import refinenet as nets
from genflow.samplers import diffusion as samplers
from genflow.samplers.langevin import langevin, langevin_step
from genflow.samplers.steps import annealed_langevin

MEAN, VARIANCE = jnp.array([0.3, -0.6]), jnp.array([0.25, 0.04])
LADDER = noise_ladder(0.1, 2.0, 5)
TINY = {"name": "ncsn", "levels": 3, "width": 4, "multipliers": (1, 2), "dilations": (1, 1), "blocks": 1}
IMAGES = Spec("images", (4, 4, 1), 8)


def data(num):
    return MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(jax.random.key(0), (num, 2))


def knows_score(factor=1.0, shift=0.0):
    """factor * (score of the noisy data) + shift, as a network."""

    def apply(params, z, cond, key=None):
        sigma = at(LADDER, cond[0], z.ndim).sigma
        return -factor * (z - MEAN) / (VARIANCE + sigma**2) + shift

    return Network(lambda key, x, cond=None: {}, apply)


def test_a_ladder_is_geometric_and_ends_where_it_should():
    levels = LADDER.sigma(jnp.arange(1, 6) / 5)
    np.testing.assert_allclose(levels, np.geomspace(0.1, 2.0, 5), rtol=1e-5)
    np.testing.assert_allclose(levels, ve_sde(0.1, 2.0).sigma(jnp.linspace(0, 1, 5)), rtol=1e-5)
    np.testing.assert_allclose(samplers.spaced_times(LADDER, 5), np.arange(5, 0, -1) / 5, rtol=1e-6)
    for ends in ((0.1, 0.1, 5), (0.0, 1.0, 5), (0.1, 1.0, 1)):
        with pytest.raises(ValueError, match="expected two or more"):
            noise_ladder(*ends)


def losses(objective, factor, shift, num=100_000):
    process = noise_conditional(knows_score(factor, shift), LADDER, objective, 2)
    values = jax.jit(lambda key: process.loss({}, {}, key, data(num), None)[0])(jax.random.key(1))
    values = np.asarray(values, np.float64)
    return values.mean(), values.std() / num**0.5


@pytest.mark.parametrize("objective", ["denoising", "sliced"])
def test_the_objective_of_any_linear_score_is_known_in_closed_form(objective):
    """A level's is sigma^2 / 2 times E||s - true||^2, and a constant: E||true - of the noise||^2, or -E||true||^2."""
    sigma2 = np.asarray(LADDER.sigma(jnp.arange(1, 6) / 5), np.float64)[:, None] ** 2
    of_z = np.asarray(VARIANCE) + sigma2
    constant = sigma2 * (1 / sigma2 - 1 / of_z if objective == "denoising" else -1 / of_z)
    for factor, shift in ((1.0, 0.0), (0.7, 0.0), (1.2, 0.3)):
        error = sigma2 * ((factor - 1) ** 2 / of_z + shift**2)
        found, spread = losses(objective, factor, shift)
        expected = 0.5 * (error + constant).sum(1).mean()
        assert spread < 0.01
        np.testing.assert_allclose(found, expected, atol=4 * spread)


def test_sliced_score_matching_is_exact_where_directions_are_all_axes():
    """With sqrt(D) times each axis the mean of v v^T is the identity: the trace itself."""
    matrix = jnp.array([[-2.0, 0.7], [0.1, -0.5]])
    z, axes = jax.random.normal(jax.random.key(0), (6, 2)), jnp.sqrt(2) * jnp.eye(2)
    directions = jnp.broadcast_to(axes[:, None], (2, 6, 2))
    score = lambda z: jnp.tanh(z @ matrix.T)  # noqa: E731
    s = score(z)
    trace = ((1 - s**2) * jnp.diag(matrix)).sum(1)
    np.testing.assert_allclose(sliced_score_matching(score, z, directions), 0.5 * (s**2).sum(1) + trace, rtol=1e-5)


def test_langevin_dynamics_has_the_moments_of_its_recursion():
    size, num, start = 0.05, 40, 3.0
    score = lambda z: -(z - MEAN) / VARIANCE  # noqa: E731
    z = np.asarray(langevin(score, jax.random.key(0), jnp.full((20_000, 2), start), num, size), np.float64)
    kept = 1 - size / np.asarray(VARIANCE)
    mean = np.asarray(MEAN) + kept**num * (start - np.asarray(MEAN))
    variance = 2 * size * (1 - kept ** (2 * num)) / (1 - kept**2)
    np.testing.assert_allclose(z.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(z.var(0), variance, rtol=0.04)
    step = langevin_step(score, jax.random.key(1), jnp.ones((1, 2)), size, 0.0)
    np.testing.assert_allclose(step[0], 1 + size * score(jnp.ones(2)), rtol=1e-6)


def test_annealed_langevin_reaches_the_data_with_the_exact_score():
    path, steps, size, num = noise_ladder(0.02, 2.0, 10), 100, 0.2, 20_000

    def denoise(z, t):
        sigma = at(path, t, z.ndim).sigma
        noise = sigma * (z - MEAN) / (VARIANCE + sigma**2)
        return Denoised(z - sigma * noise, noise)

    @jax.jit
    def drawn(key):
        z = path.prior_std * jax.random.normal(key, (num, 2))
        return samplers.draw(annealed_langevin(), denoise, path, samplers.spaced_times(path, 10), key, z)

    x = np.asarray(drawn(jax.random.key(2)), np.float64)
    mean, variance, v = -np.asarray(MEAN, np.float64), np.full(2, 4.0), np.asarray(VARIANCE, np.float64)
    for sigma in np.geomspace(2.0, 0.02, 10)[1:]:
        kept = 1 - size * sigma**2 / (v + sigma**2)
        stationary = 2 * size * sigma**2 / (1 - kept**2)
        mean, variance = mean * kept**steps, stationary + (variance - stationary) * kept ** (2 * steps)
    shrunk = v / (v + 0.02**2)
    np.testing.assert_allclose(x.var(0), variance * shrunk**2, rtol=0.04)
    np.testing.assert_allclose(x.mean(0), np.asarray(MEAN) + mean * shrunk, atol=0.02)
    np.testing.assert_allclose(variance, v, rtol=0.1)  # which is near the data's


# The network


def test_a_conditional_norm_normalizes_channels_and_gives_the_means_back():
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (2, 6, 6, 4)) * jnp.arange(1, 5)
    tables = jax.random.normal(jax.random.key(1), (3, 3, 4))
    params = dict(zip(("scale", "mix", "bias"), tables, strict=True))
    y = np.asarray(nets.conditional_norm(params, x, jnp.eye(3)[jnp.array([2, 0])]))
    x = np.asarray(x, np.float64)
    for example, level in ((0, 2), (1, 0)):
        scale, mix, bias = np.asarray(tables)[:, level]
        means = x[example].mean((0, 1))
        normal = (x[example] - means) / np.sqrt(x[example].var((0, 1)) + 1e-5)
        among = (means - means.mean()) / np.sqrt(means.var(ddof=1) + 1e-5)
        np.testing.assert_allclose(y[example], scale * (normal + mix * among) + bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("dilation", "side"), [(1, 5), (2, 6), (2, 5), (4, 7)])
def test_a_dilated_convolution_is_the_native_one(dilation, side):
    x, kernel = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, side, 6, 3), (3, 3, 3, 5)]))
    padding = [(dilation, dilation)] * 2
    names = ("NHWC", "HWIO", "NHWC")
    native = jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, None, (dilation,) * 2, names)
    np.testing.assert_allclose(nets.dilated_conv2d(x, kernel, dilation), native, atol=1e-4)


def test_changes_of_images_along_both_axes():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    windows = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 5, 5, 1), (1, 1, 1, 1), "SAME") / 25
    np.testing.assert_allclose(nets.mean_of_windows(x), windows, atol=1e-5)
    ramp = jnp.arange(3.0).reshape(1, 3, 1, 1) + jnp.arange(3.0).reshape(1, 1, 3, 1)
    wide = nets.stretch(ramp, (5, 5))[0, ..., 0]
    np.testing.assert_allclose(wide, np.add.outer(np.linspace(0, 2, 5), np.linspace(0, 2, 5)), atol=1e-6)


def test_the_level_matters_and_between_levels_tables_are_interpolated():
    np.testing.assert_allclose(nets.hats(jnp.array([0.0, 0.2, 1.0, 0.5]), 5)[:3].argmax(1), [0, 0, 4])
    np.testing.assert_allclose(nets.hats(jnp.array([0.5]), 5)[0], [0, 0.5, 0.5, 0, 0], atol=1e-6)
    network = nets.refinenet(3, 4, (1, 2, 2), (1, 1, 2), 1)(1)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([1 / 3, 1.0])
    params = network.init(jax.random.key(1), x, (t, None))
    params["output"]["norm"]["bias"] = jnp.array([[0.0], [0.0], [1.0]]) * jnp.ones(4)
    draw = jax.jit(lambda x, t: network.apply(params, x, (t, None)))
    y, turned = draw(x, t), draw(x, t[::-1])
    assert y.shape == x.shape
    assert (np.abs(y - turned) > 1e-3).any((1, 2, 3)).all()


def test_the_score_of_a_model_is_in_units_of_its_data():
    model = build(TINY | {"sampler_steps": 2}, IMAGES)
    x = jax.random.randint(jax.random.key(0), (2, *IMAGES.shape), 0, 8)
    params, state = jax.jit(model.init)(jax.random.key(1), {"x": x})
    score, found = jax.jit(
        lambda params: (
            model.score(params, state, x),
            model.diffusion.denoise(params, state, 2 * x / 7 - 1.0, jnp.asarray(1 / 3)),
        )
    )(params)
    np.testing.assert_allclose(score, 2 / 7 * -found.noise / 0.02, rtol=1e-4, atol=1e-5)
    assert (model.log_prob, model.bound) == (None, "none")


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        ({"objective": "exact"}, IMAGES, "objective='exact': expected one of denoising, sliced"),
        ({"prediction": "data"}, IMAGES, "prediction='data': expected one of score, noise"),
        ({"projections": 0}, IMAGES, "projections=0: expected 1 or more"),
        ({"sampler_steps": 4}, IMAGES, "sampler_steps=4: there are levels=3"),
        ({"dilations": (1,)}, IMAGES, "multipliers=.* and dilations=.* have one entry for each stage"),
        ({"blocks": 0}, IMAGES, "1 or more each"),
        ({}, Spec("points", (2,), None), "models images; points"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(section, spec, message):
    with pytest.raises(UserError, match=message):
        build(TINY | {"sampler_steps": 2} | section, spec)


def test_images_that_cannot_be_halved_are_refused():
    network = nets.refinenet(3, 4, (1, 2), (1, 1), 1)(1)
    with pytest.raises(ValueError, match="dilations=.* halve 5x4 pixels 1 times: give more of them dilations"):
        network.init(jax.random.key(0), jnp.zeros((1, 5, 4, 1)), (jnp.ones(1), None))
