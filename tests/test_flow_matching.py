"""Flow matching against normal data, for which the best velocity and the least loss are known, and its couplings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.core import Network, Spec
from genflow.diffusion import interpolants
from genflow.diffusion.path import at, linear_interpolant, sde
from genflow.errors import UserError
from genflow.models import build
from genflow.models.flow_matching import matching
from genflow.sharding import batch_sharding, make_mesh

MEAN, VARIANCE = jnp.array([0.3, -0.6]), jnp.array([0.25, 0.04])
POINTS = Spec("points", (2,), None)
LABELLED = Spec("labelled", (4, 4, 2), 8, num_classes=3)
PATHS = {
    "linear": linear_interpolant(),
    "trigonometric": interpolants.trigonometric_interpolant(),
    "linear, latent noise": interpolants.with_latent_noise(linear_interpolant(1e-3), 2.0),
}


def best_velocity(path, error=0.0):
    """E[alpha' x + sigma' eps | z] of x ~ N(MEAN, VARIANCE), and an error added to it."""

    def apply(params, z, cond, key=None):
        a, s, da, ds = at(path, cond[0], z.ndim)
        of_z = a**2 * VARIANCE + s**2
        return da * MEAN + (a * da * VARIANCE + s * ds) / of_z * (z - a * MEAN) + error

    return Network(lambda key, x, cond=None: {}, apply)


@pytest.mark.parametrize("name", PATHS)
def test_the_least_loss_is_the_conditional_variance_of_the_velocity(name):
    path, num = PATHS[name], 200_000
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(jax.random.key(0), (num, 2))

    @jax.jit
    def losses(key):
        best, worse = (matching(POINTS, best_velocity(path, error), path) for error in (0.0, 0.5))
        return tuple(process.loss({}, {}, key, x, None)[0] for process in (best, worse))

    best, worse = (np.asarray(values, np.float64) for values in losses(jax.random.key(1)))
    a, s, da, ds = at(path, path.start + (path.end - path.start) * (jnp.arange(num) + 0.5) / num, 2)
    of_velocity, of_z = da**2 * VARIANCE + ds**2, a**2 * VARIANCE + s**2
    least = np.asarray(of_velocity - (a * da * VARIANCE + s * ds) ** 2 / of_z, np.float64).sum(1)
    spread = worse.std() / num**0.5
    assert spread < 0.03 * least.mean()
    np.testing.assert_allclose(best.mean(), least.mean(), atol=4 * spread)
    np.testing.assert_allclose(worse.mean(), least.mean() + 2 * 0.25, atol=4 * spread)


@pytest.mark.parametrize("name", PATHS)
def test_the_best_velocity_says_the_score(name):
    path, t = PATHS[name], jnp.linspace(0.02, 0.98, 7)
    z = jax.random.normal(jax.random.key(0), (7, 2))
    point = at(path, t, 2)
    found = matching(POINTS, best_velocity(path), path).denoise({}, z, t)
    score = -(z - point.alpha * MEAN) / (point.alpha**2 * VARIANCE + point.sigma**2)
    np.testing.assert_allclose(-found.noise / point.sigma, score, rtol=1e-3, atol=1e-3)
    # and the drift of the equation without noise is that of the SDE, less half of g^2 score
    drift, g2 = sde(point)
    velocity = best_velocity(path).apply({}, z, (t, None))
    np.testing.assert_allclose(drift * z - 0.5 * g2 * score, velocity, rtol=1e-3, atol=1e-3)


def test_latent_noise_of_scale_two_makes_straight_signals_preserve_variance():
    path, t = PATHS["linear, latent noise"], jnp.linspace(0.1, 0.9, 5)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1, rtol=1e-5)
    np.testing.assert_allclose(path.alpha(t), 1 - t, rtol=1e-6)
    with pytest.raises(ValueError, match="latent_noise=-1"):
        interpolants.with_latent_noise(path, -1)


def cost(x, noise):
    return float(((np.asarray(x) - np.asarray(noise)) ** 2).sum())


def test_the_coupling_is_the_cheapest_of_all():
    x, noise = jax.random.normal(jax.random.key(0), (2, 5, 3, 1)) + 1
    paired = np.asarray(interpolants.optimal_transport(x, noise))
    ways = {order: cost(x, noise[np.array(order)]) for order in itertools.permutations(range(5))}
    cheapest = min(ways, key=ways.get)
    assert cheapest != (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(paired, np.asarray(noise)[np.array(cheapest)])


def test_the_coupling_of_a_batch_on_eight_devices_is_that_of_one_device():
    x, noise = 2 * jax.random.normal(jax.random.key(0), (2, 64, 2))
    sharding = batch_sharding(make_mesh(-1, 1))
    pair = jax.jit(interpolants.optimal_transport)
    alone, spread = pair(x, noise), pair(jax.device_put(x, sharding), jax.device_put(noise, sharding))
    np.testing.assert_array_equal(alone, spread)
    np.testing.assert_array_equal(np.sort(np.asarray(alone), 0), np.sort(np.asarray(noise), 0))
    assert cost(x, alone) < 0.5 * cost(x, noise)


def seen(coupling, c):
    """What the network is given, its target, and the condition."""
    given = {}

    def apply(params, z, cond, key=None):
        given.update(z=z, t=cond[0], c=cond[1])
        return jnp.zeros_like(z)

    path = PATHS["linear"]
    process = matching(POINTS, Network(lambda *_: {}, apply), path, coupling)
    x = jnp.linspace(-3, 3, 64).reshape(32, 2)
    values = process.loss({}, {}, jax.random.key(0), x, c)[0]
    noise = (given["z"] - (1 - given["t"][:, None]) * x) / given["t"][:, None]
    return x, noise, given["c"], values


def test_the_loss_moves_the_noise_and_leaves_conditions_with_their_examples():
    c = jax.random.normal(jax.random.key(3), (32, 1))
    x, noise, same, values = seen("independent", c)
    _, paired, kept, cheaper = seen("optimal_transport", c)
    np.testing.assert_array_equal(kept, c)
    np.testing.assert_array_equal(same, c)
    np.testing.assert_allclose(np.sort(paired, 0), np.sort(noise, 0), atol=1e-2)
    assert cost(x, paired) < 0.8 * cost(x, noise)
    np.testing.assert_allclose(values.sum(), cost(x, noise), rtol=1e-2)  # of straight paths the velocity is noise - x
    np.testing.assert_allclose(cheaper.sum(), cost(x, paired), rtol=1e-2)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"path": "square"}, "path='square': expected one of linear, trigonometric"),
        ({"coupling": "affine"}, "coupling='affine': expected one of independent, optimal_transport"),
        (
            {"coupling": "optimal_transport", "sampler": "reverse_sde"},
            "teaches no score, .*'reverse_sde'.* take one of",
        ),
        ({"coupling": "optimal_transport", "likelihood": "bound"}, "needs likelihood='ode'"),
        ({"coupling": "optimal_transport", "conditional": True}, "hands each class noise of its own"),
        ({"latent_noise": -1.0}, "latent_noise=-1.0 must not be negative"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(section, message):
    with pytest.raises(UserError, match=message):
        build({"name": "flow_matching", "width": 8, "blocks": 1} | section, POINTS)
