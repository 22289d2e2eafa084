"""The U-Net: its published size, what reaches its output, its attention, its gradient in a loop, what it refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.networks import unet as public
from genflow.networks.unet import unet

TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.5}


def tiny(features=2, classes=3, **options):
    """A U-Net on 4x4 pixels whose parameters are all random, and its arguments."""
    network = unet(**TINY | options)(features)
    z, t = jax.random.normal(jax.random.key(1), (2, 4, 4, 3)), jnp.array([0.2, 0.7])
    c = jnp.eye(classes)[:2] if classes else None
    shapes = jax.eval_shape(network.init, jax.random.key(0), z, (t, c))
    leaves, structure = jax.tree.flatten(shapes)
    draws = np.random.default_rng(0).normal(0, 0.3, sum(math.prod(leaf.shape) for leaf in leaves)).astype(np.float32)
    cuts = np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1]
    parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(draws, cuts), leaves, strict=True)]
    return network, structure.unflatten(parts), z, t, c


def num_parameters(channels, features, c=None, **options):
    z = jnp.zeros((1, 32, 32, channels))
    shapes = jax.eval_shape(unet(**options)(features).init, jax.random.key(0), z, (jnp.zeros(1), c))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def test_the_published_network_has_its_published_size():
    assert public is unet
    assert num_parameters(3, 3) == 35_746_307  # 35.7 M: Ho et al. (2020), appendix B
    assert num_parameters(3, 3, jnp.zeros((1, 10))) == 35_746_307 + 10 * 512
    small = {"width": 32, "multipliers": (1, 2, 4)}
    assert num_parameters(3, 3, **small) == 3_692_867
    told = num_parameters(3, 3, **small, scale_shift=True) - num_parameters(3, 3, **small)
    widths = 2 * 32 + 2 * 64 + 2 * 128 + 2 * 128 + 3 * 128 + 3 * 64 + 3 * 32
    assert told == 129 * widths


@pytest.mark.parametrize(
    "options",
    [{}, {"scale_shift": True, "resample": "block", "rescale_skip": True, "memory": "remat", "heads": 2}],
    ids=["ddpm", "adm"],
)
def test_time_class_and_dropout_reach_the_output(options):
    network, params, z, t, c = tiny(attention=(4,), **options)
    apply = jax.jit(network.apply)
    y = apply(params, z, (t, c))
    assert y.shape == (2, 4, 4, 2)
    np.testing.assert_array_equal(y, apply(params, z, (t, c)))
    for changed in ((t + 0.1, c), (t, c[::-1])):
        assert np.abs(y - apply(params, z, changed)).min() > 1e-6
    assert np.abs(y - apply(params, z, (t, c), jax.random.key(0))).max() > 1e-3
    one = apply(params, z[:1], (t[:1], c[:1]))
    np.testing.assert_allclose(one, y[:1], rtol=1e-4, atol=1e-4)


def test_a_fresh_network_returns_zeros_and_one_without_dropout_ignores_the_key():
    network, params, z, t, c = tiny(dropout=0.0)
    fresh = network.init(jax.random.key(0), z, (t, c))
    assert not network.apply(fresh, z, (t, c)).any()
    np.testing.assert_array_equal(network.apply(params, z, (t, c)), network.apply(params, z, (t, c), jax.random.key(0)))


def test_bfloat16_images_are_computed_in_bfloat16_and_statistics_in_float32():
    network, params, z, t, c = tiny()
    exact, coarse = network.apply(params, z, (t, c)), network.apply(params, z.astype(jnp.bfloat16), (t, c))
    assert coarse.dtype == jnp.float32
    assert 1e-5 < np.abs(exact - coarse).max() < 0.1 * np.abs(exact).max()
    text = jax.jit(network.apply).lower(params, z.astype(jnp.bfloat16), (t, c)).as_text()
    assert not [line for line in text.splitlines() if "convolution" in line and "f32" in line]
