"""Variational diffusion models: the bound of a Gaussian's best denoiser in closed form, schedules, the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.core import Network, Spec
from genflow.diffusion import path
from genflow.diffusion.bound import spread
from genflow.diffusion.schedule import SCHEDULES, monotone
from genflow.errors import UserError
from genflow.models import build
from genflow.models.vdm import noise_network, squared_error, variational
from genflow.networks.unet import unet
from genflow.networks.vdm import fourier_features, level_net

MEAN, VARIANCE = np.array([0.3, -0.6]), np.array([0.25, 0.04])
POINTS, IMAGES = Spec("points", (2,), None), Spec("images", (4, 4, 3), 256)
ENDS = (-8.0, 4.0)
TINY = functools.partial(monotone, units=5)


def best():
    """E[eps | z] where x ~ N(MEAN, VARIANCE)."""

    def apply(params, z, cond, key=None):
        gamma = cond[0][:, None]
        mean = jnp.sqrt(jax.nn.sigmoid(-gamma)) * MEAN
        variance = jax.nn.sigmoid(-gamma) * VARIANCE + jax.nn.sigmoid(gamma)
        return jnp.sqrt(jax.nn.sigmoid(gamma)) * (z - mean) / variance

    return Network(lambda key, z, cond=None: {}, apply)


def data(num):
    return jnp.asarray(MEAN + np.sqrt(VARIANCE) * np.random.default_rng(0).normal(size=(num, 2)), jnp.float32)


def bent(schedule, size=1.0):
    """Parameters whose interior is no straight line, with the ends as given."""
    params = schedule.init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params["progress"])
    noise = np.random.default_rng(1)
    moved = [leaf + size * noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return params | {"progress": jax.tree.unflatten(structure, moved)}


def diffusion_terms(schedule, params, num_steps, num=100_000):
    process = variational(POINTS, best(), schedule, num_steps)

    @jax.jit
    def look(params, key, x):
        values, _, metrics = process.loss(params, {}, key, x, None)
        return values, metrics

    return look({"noise": {}, "schedule": params}, jax.random.key(2), data(num))


def chain(num_steps, ends=ENDS):
    """The chain's term of the best denoiser, in closed form: E ||eps - E[eps | z]||^2 is v / (v + e^gamma)."""
    gamma = np.linspace(*ends, num_steps + 1)
    error = (VARIANCE / (VARIANCE + np.exp(gamma[1:, None]))).sum(1)
    return (0.5 * np.expm1(np.diff(gamma)) * error).sum()


def continuum(ends=ENDS):
    low, high = (gamma - np.log(VARIANCE + np.exp(gamma)) for gamma in ends)
    return 0.5 * (high - low).sum()


@pytest.mark.parametrize("num_steps", [1, 4, 32, 0])
def test_the_bound_of_a_gaussian_is_the_closed_form(num_steps):
    schedule = SCHEDULES["fixed"](*ENDS)
    values, metrics = diffusion_terms(schedule, {}, num_steps)
    error = 3 * float(values.std()) / np.sqrt(len(values))
    np.testing.assert_allclose(
        metrics["diffusion_term"], chain(num_steps) if num_steps else continuum(), atol=error, rtol=1e-3
    )
    entropy = 0.5 * np.log(2 * np.pi * np.e * VARIANCE).sum()
    assert float(values.mean()) > entropy - error


def test_more_steps_bound_better_and_infinitely_many_are_continuous_time():
    values = [chain(num_steps) for num_steps in (1, 2, 4, 8, 64, 512, 4096)]
    assert (np.diff(values) < 0).all()
    assert values[-1] > continuum()
    np.testing.assert_allclose(values[-1], continuum(), rtol=2e-3)
    gaps = np.array(values[-3:]) - continuum()
    np.testing.assert_allclose(gaps[:-1] / gaps[1:], 8, rtol=0.1)  # the gap is in proportion to 1 / T


def test_the_terms_of_a_chain_add_up_to_its_bound():
    schedule = SCHEDULES["fixed"](*ENDS)
    process, x = variational(POINTS, best(), schedule, 4), data(50_000)
    params = {"noise": {}, "schedule": {}}
    keys = jax.random.split(jax.random.key(3), process.num_terms + 1)
    look = jax.jit(lambda key, i: process.terms(params, key, x, None, i).mean())
    terms = [float(look(key, i)) for i, key in enumerate(keys)]
    _, metrics = diffusion_terms(schedule, {}, 4)
    assert len(terms) == 4 + 2
    np.testing.assert_allclose(terms[0], metrics["prior_term"], rtol=0.02)
    np.testing.assert_allclose(terms[1], metrics["decoder_term"], rtol=0.02)
    np.testing.assert_allclose(sum(terms[2:]), chain(4), rtol=0.02)
    assert (np.diff(terms[2:]) < 0).all()  # the first step back to data is the dearest


def test_between_its_ends_a_schedule_changes_the_variance_alone():
    found = []
    for schedule, params in ((SCHEDULES["fixed"](*ENDS), {}), (monotone(*ENDS), bent(monotone(*ENDS), 0.7))):
        values, metrics = diffusion_terms(schedule, params, 0)
        np.testing.assert_allclose(metrics["diffusion_term"], continuum(), rtol=0.02)
        found.append(float(values.var()))
    assert abs(np.log(found[0] / found[1])) > 0.2


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_rises_from_one_end_to_the_other(name):
    schedule = SCHEDULES[name](*ENDS)
    params = bent(schedule) if name == "monotone" else schedule.init(jax.random.key(0))
    t = jnp.linspace(0, 1, 101)
    gamma, rate = jax.jvp(lambda t: schedule.gamma(params, t), (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose((gamma[0], gamma[-1]), ENDS, rtol=1e-5)
    assert (np.diff(gamma) > 0).all()
    assert (np.asarray(rate) > 0).all()
    assert np.isfinite(rate).all()
    np.testing.assert_allclose(rate[1:-1], (gamma[2:] - gamma[:-2]) / 0.02, rtol=0.06)
    np.testing.assert_allclose(path.log_snr(schedule.path(params), t), -gamma, atol=1e-3)
    if name == "monotone":
        assert np.abs(gamma - np.linspace(*ENDS, 101)).max() > 0.1
    if name != "fixed":
        moved = params | {"gamma_0": params["gamma_0"] - 1, "span": params["span"] + 3}
        np.testing.assert_allclose(schedule.ends(moved), (ENDS[0] - 1, ENDS[1] + 2), rtol=1e-6)


def test_the_monotone_schedule_starts_nearly_straight():
    schedule = monotone(*ENDS)
    progress = schedule.progress(schedule.init(jax.random.key(0)), jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(progress, np.linspace(0, 1, 11), atol=0.02)


def test_the_ends_have_the_gradient_of_the_bound():
    """In closed form: of the lower end e^gamma / (v + e^gamma) / 2, of the upper the prior's and the continuum's."""
    schedule, x = SCHEDULES["linear"](-3.0, 1.0), data(400_000)
    process = variational(POINTS, best(), schedule)
    params = {"noise": {}, "schedule": schedule.init(jax.random.key(0))}
    gradient = jax.jit(jax.grad(lambda params: process.loss(params, {}, jax.random.key(4), x, None)[0].mean()))
    found = gradient(params)["schedule"]
    low, high = np.exp(-3.0), np.exp(1.0)
    of_low = (0.5 * low / (VARIANCE + low)).sum()
    alpha2 = 1 / (1 + high)  # prior: (alpha^2 (m^2 + v) + sigma^2 - 1 - log sigma^2) / 2
    of_prior = 0.5 * (alpha2 * (1 - alpha2) * (1 - MEAN**2 - VARIANCE) - alpha2).sum()
    of_high = of_prior + (0.5 * VARIANCE / (VARIANCE + high)).sum()
    np.testing.assert_allclose(found["span"], of_high, rtol=0.03)
    np.testing.assert_allclose(found["gamma_0"], of_low + of_high, rtol=0.03)


def test_the_decoder_of_integers_has_the_gradient_of_the_lower_end():
    spec = Spec("bins", (2,), 5)
    x = jnp.array([[-1.0, 0.5], [0.0, 1.0]])

    @jax.jit
    def decoder(gamma_0):
        schedule = SCHEDULES["linear"](-2.0, 4.0)
        params = schedule.init(jax.random.key(0)) | {"gamma_0": gamma_0}
        process = variational(spec, best(), schedule)
        return process.loss({"noise": {}, "schedule": params}, {}, jax.random.key(5), x, None)[2]["decoder_term"]

    here, step = jnp.float32(-2.0), 0.01
    slope = (decoder(here + step) - decoder(here - step)) / (2 * step)
    assert slope > 0.01
    np.testing.assert_allclose(jax.grad(decoder)(here), slope, rtol=0.01)


def test_the_interior_has_the_gradient_of_the_mean_square_and_the_rest_that_of_the_mean():
    schedule, x = TINY(-3.0, 2.0), data(3)

    def apply(params, z, cond, key=None):
        return jnp.tanh(params["w"] * z + 0.1 * cond[0][:, None])

    noise = Network(None, apply)
    process = variational(POINTS, noise, schedule)
    params = {"noise": {"w": jnp.array([0.4, -0.7])}, "schedule": bent(schedule, 0.3)}
    key = jax.random.key(6)

    def terms(params):
        key_time, key_noise, *_ = jax.random.split(key, 4)
        t, drawn = spread(key_time, 3), jax.random.normal(key_noise, x.shape)
        gamma, rate = jax.jvp(lambda t: schedule.gamma(params["schedule"], t), (t,), (jnp.ones_like(t),))
        return 0.5 * rate * squared_error(noise, params["noise"], gamma, x, drawn, None)

    @jax.jit
    def gradients(params):
        def others(params):  # prior and decoder, of which the interior is no part
            _, _, metrics = process.loss(params, {}, key, x, None)
            return metrics["prior_term"] + metrics["decoder_term"]

        of_loss = jax.grad(lambda params: process.loss(params, {}, key, x, None)[0].mean())(params)
        of_mean = jax.grad(lambda params: terms(params).mean() + others(params))(params)
        of_square = jax.grad(lambda params: (terms(params) ** 2).mean() / 2)(params)
        return of_loss, of_mean, of_square, terms(params), process.loss(params, {}, key, x, None)[2]

    found, of_mean, of_square, values, metrics = gradients(params)
    np.testing.assert_allclose(metrics["diffusion_term"], values.mean(), rtol=1e-5)
    interior = found["schedule"].pop("progress"), of_square["schedule"]["progress"]
    del of_mean["schedule"]["progress"]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), *interior)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, of_mean)
    assert np.abs(interior[0]["log_weight"]).max() > 1e-2


def test_the_gradient_of_the_interior_lowers_the_variance_of_the_bound():
    schedule, x = TINY(*ENDS), data(2_000)
    process = variational(POINTS, best(), schedule)

    def of(params, key):
        values, _, metrics = process.loss({"noise": {}, "schedule": params}, {}, key, x, None)
        return values.mean(), (metrics["diffusion_term"], values)

    @jax.jit
    def descended(params):
        def step(params, key):
            gradient = jax.grad(of, has_aux=True)(params, key)[0]["progress"]
            moved = jax.tree.map(lambda a, g: a - 0.002 * g, params["progress"], gradient)
            return params | {"progress": moved}, None

        params, _ = jax.lax.scan(step, params, jax.random.split(jax.random.key(7), 200))
        return params

    start = schedule.init(jax.random.key(0))
    before, after = (jax.jit(of)(params, jax.random.key(8))[1] for params in (start, descended(start)))
    assert float(after[1].std()) < 0.8 * float(before[1].std())
    np.testing.assert_allclose(after[0], continuum(), rtol=0.1)


def test_what_a_model_expects_of_data_and_noise_is_one_thing():
    model = build({"name": "vdm", "width": 8, "blocks": 1, "schedule": "monotone"}, POINTS)
    params, state = jax.jit(model.init)(jax.random.key(0), {"x": data(5)})
    t, z = jnp.linspace(0, 1, 5), 2 * data(5)
    found = jax.jit(model.diffusion.denoise)(params, state, z, t)
    point = path.at(model.diffusion.path(params), t, 2)
    np.testing.assert_allclose(point.alpha * found.x + point.sigma * found.noise, z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(point.alpha**2 + point.sigma**2, 1, rtol=1e-5)


def test_fourier_features_are_the_papers_for_256_bins():
    z = 2 * jnp.arange(256.0)[None] / 255 - 1 + 0.3 / 255
    shrunk = z * 255 / 256  # where bins are 2 / 256 wide
    wanted = [f(2.0**n * np.pi * shrunk) for f in (jnp.sin, jnp.cos) for n in (7, 8)]
    found = fourier_features(z, (2 * 2 / 255, 2 / 255))
    np.testing.assert_allclose(found, jnp.concatenate(wanted, axis=-1), atol=2e-3)
    centers = fourier_features(2 * jnp.arange(256.0)[None] / 255 - 1, (2 / 255,))[0]
    np.testing.assert_allclose(centers[:256], 0, atol=2e-3)
    np.testing.assert_allclose(centers[256:], -1, atol=2e-3)


def test_a_model_is_given_fourier_features_in_bins_and_adds_z():
    seen = []

    def apply(params, inputs, cond, key=None):
        seen.append((inputs, cond[0]))
        return jnp.zeros((*inputs.shape[:-1], 3))

    z = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    noise = noise_network(Network(None, apply), IMAGES, *ENDS, (2.0, 1.0))
    np.testing.assert_array_equal(noise.apply({}, z, (jnp.array(ENDS), None)), z)
    inputs, told = seen[0]
    assert inputs.shape == (2, 4, 4, 3 * 5)
    np.testing.assert_allclose(inputs[..., 6:9], jnp.sin(2 * np.pi * z * 255 / 2), atol=1e-3)
    np.testing.assert_allclose(told, (0, 1))


def perturbed(params):
    leaves, structure = jax.tree.flatten(params)
    noise = np.random.default_rng(2)
    return jax.tree.unflatten(structure, [a + 0.1 * noise.normal(size=a.shape).astype(np.float32) for a in leaves])


def unstacked(params, blocks):
    """The same parameters by the names of a U-Net of one level; of the blocks up the last is the first of the stack."""
    of = lambda name, i: jax.tree.map(lambda a: a[i], params[name])  # noqa: E731
    down = {f"down_0_{i}": of("down", i) for i in range(blocks)}
    up = {f"up_0_{i}": of("up", blocks - i) for i in range(blocks + 1)}
    return {name: p for name, p in params.items() if name not in ("down", "up")} | down | up


def test_two_scans_are_a_unet_of_one_level():
    x, blocks = jax.random.normal(jax.random.key(0), (2, 4, 4, 5)), 2
    cond = jnp.array([0.2, 0.9]), jnp.eye(2)
    network = level_net(8, blocks, attention_everywhere=True, memory="remat")(3)
    params = perturbed(jax.jit(network.init)(jax.random.key(1), x, cond))
    one_by_one = unet(8, (1,), blocks, attention=(4,), dropout=0.0)(3)
    wanted = jax.jit(one_by_one.apply)(unstacked(params, blocks), x, cond)
    found = jax.jit(network.apply)(params, x, cond)
    assert found.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert np.asarray(found).std() > 0.1


def test_all_blocks_drop_where_there_is_a_key():
    x, cond = jax.random.normal(jax.random.key(0), (1, 4, 4, 5)), (jnp.array([0.2]), None)
    network = level_net(8, 2, dropout=0.5)(3)
    start, apply = jax.jit(network.init)(jax.random.key(1), x, cond), jax.jit(network.apply)
    np.testing.assert_array_equal(apply(start, x, cond), 0)
    start |= {"output": perturbed(start["output"])}
    for name in ("down", "middle_0", "middle_1", "up"):  # the others add nothing
        params = start | {name: perturbed(start[name])}
        without, again, one, other = (
            apply(params, x, cond, key) for key in (None, None, *jax.random.split(jax.random.key(2)))
        )
        np.testing.assert_array_equal(without, again)
        assert np.abs(one - without).max() > 1e-3
        assert np.abs(one - other).max() > 1e-3


def test_the_number_of_parameters_is_that_of_the_official_code():
    spec = Spec("cifar10", (32, 32, 3), 256)
    model = build({"name": "vdm"}, spec)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((2, 32, 32, 3), jnp.uint8)})
    block = 2 * (2 * 128 + 9 * 128 * 128 + 128) + 512 * 128
    up = block + 2 * 128 + 9 * 128 * 128 + 256 * 128 + 128
    attention = 2 * 128 + 4 * (128 * 128 + 128)
    told = 129 * 512 + 512 + 512 * 512 + 512
    ends = (9 * 15 * 128 + 128) + (2 * 128 + 9 * 128 * 3 + 3) + 2
    official = 34 * block + 33 * up + attention + told + ends
    ours = sum(a.size for a in jax.tree.leaves(params))
    assert ours == official + 67 * 128 - 512  # a bias beside the time in every block, no unused condition


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "cosine"}, "schedule='cosine': expected one of fixed, linear, monotone"),
        ({"gamma_min": 6.0}, "gamma_min=6.0 must be below gamma_max=5.0"),
        ({"num_steps": -1}, "num_steps=-1"),
        ({"fourier_periods": (0.0,)}, r"fourier_periods=\(0.0,\) must be above zero"),
        ({"memory": "invert"}, "memory='invert': expected one of store, remat"),
        ({"blocks": 0}, "blocks=0 must be above zero"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        build({"name": "vdm"} | arguments, IMAGES)
