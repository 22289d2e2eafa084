"""PixelCNN++: shifted convolutions and changes of resolution, weights scaled by the first batch, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.networks import pixelcnnpp
from genflow.networks.shifted import double, halve, shifted_conv

rng = np.random.default_rng(0)


@pytest.mark.parametrize("columns", [2, 3])
def test_changes_of_resolution_are_what_their_sums_say(columns):
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((1, 4, 6, 2), (2, columns, 2, 3)))
    whole = np.asarray(shifted_conv(x, kernel))
    np.testing.assert_allclose(halve(x, kernel), whole[:, ::2, ::2], rtol=1e-4, atol=1e-5)
    wanted, first = np.zeros((1, 8, 12, 3)), (columns - 1) // 2
    for r, c, a, b in np.ndindex(4, 6, 2, columns):
        if 0 <= 2 * c + b - first < 12:
            wanted[:, 2 * r + a, 2 * c + b - first] += x[:, r, c] @ kernel[a, b]
    np.testing.assert_allclose(double(x, kernel), wanted, rtol=1e-4, atol=1e-5)


@functools.cache
def evaluated():
    """The outputs for the first batch: without a key, with one, with another; with a key but no dropout."""
    nets = [pixelcnnpp(4, 1, 1, 8, 2, rate)(5) for rate in (0.5, 0.0)]
    x = jax.random.randint(jax.random.key(0), (16, 4, 1), 0, 8)

    @jax.jit
    def all_of_them(x):
        params = nets[0].init(jax.random.key(1), x)
        keys = [None, jax.random.key(2), jax.random.key(3)]
        return [nets[0].apply(params, x, None, key) for key in keys] + [nets[1].apply(params, x, None, keys[1])]

    return [np.asarray(raw) for raw in all_of_them(x)]


def test_the_first_batch_sets_mean_and_deviation():
    raw = evaluated()[0]
    np.testing.assert_allclose(raw.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(raw.std((0, 1)), 1, rtol=1e-4)


def test_dropout_follows_the_key_and_needs_one():
    plain, one, other, never = evaluated()
    assert (np.abs(one - plain).max((0, 1)) > 1e-3).all()
    assert (np.abs(other - one).max((0, 1)) > 1e-3).all()
    np.testing.assert_allclose(never, plain, rtol=1e-5, atol=1e-6)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        net = pixelcnnpp(2, 1, 1, 4, 2)(3)
        x = jnp.zeros((2, 2, 1), jnp.int32).at[0, 0].set(3)
        params = jax.jit(net.init)(jax.random.key(0), x)
        assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float64")}
        assert jax.eval_shape(net.apply, params, x).dtype == jnp.float64
        assert jax.eval_shape(lambda p: net.step(p, net.start(p, 2), x, 0)[0], params).dtype == jnp.float64
