"""The U-Net: its published size, what reaches its output, its attention, its gradient in a loop, what it refuses."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.networks import unet
from genflow.networks.unet import Options, conv, double, halve, self_attention

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
    apply = jax.jit(network.apply)
    assert not apply(jax.jit(network.init)(jax.random.key(0), z, (t, c)), z, (t, c)).any()
    np.testing.assert_array_equal(apply(params, z, (t, c)), apply(params, z, (t, c), jax.random.key(0)))


def test_bfloat16_images_are_computed_in_bfloat16_and_statistics_in_float32():
    network, params, z, t, c = tiny()
    apply = jax.jit(network.apply)
    exact, coarse = apply(params, z, (t, c)), apply(params, z.astype(jnp.bfloat16), (t, c))
    assert coarse.dtype == jnp.float32
    assert 1e-5 < np.abs(exact - coarse).max() < 0.1 * np.abs(exact).max()
    text = apply.lower(params, z.astype(jnp.bfloat16), (t, c)).as_text()
    assert not [line for line in text.splitlines() if "convolution" in line and "f32" in line]


def test_attention_is_that_of_a_dense_reference():
    n, heads = 8, 2
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"query_key_value": (1, 1, n, 3 * n), "mix": (1, 1, n, n)}
    params = {
        name: {"kernel": 0.3 * jax.random.normal(key, shape), "bias": jax.random.normal(key, shape[-1:])}
        for (name, shape), key in zip(shapes.items(), keys, strict=False)
    }
    params["normalization"] = {"scale": 1 + jnp.arange(n) / n, "bias": jnp.arange(n) / n}
    x = 3 + jax.random.normal(keys[3], (2, 2, 3, n))
    found = self_attention(Options(heads, 0.0, False, "conv", False), params, x)

    grouped = np.asarray(x, np.float64).reshape(2, 6, 2, 4)  # two groups of four channels
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    a = (centred / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)).reshape(2, 6, n)
    a = a * params["normalization"]["scale"] + params["normalization"]["bias"]
    a = a @ params["query_key_value"]["kernel"][0, 0] + params["query_key_value"]["bias"]
    q, k, v = (part.reshape(2, 6, heads, 4) for part in np.split(a, 3, -1))
    y = np.zeros((2, 6, heads, 4))
    for example, head, at in itertools.product(range(2), range(heads), range(6)):
        weights = np.exp(k[example, :, head] @ q[example, at, head] / 2)
        y[example, at, head] = weights @ v[example, :, head] / weights.sum()
    expected = y.reshape(2, 6, n) @ params["mix"]["kernel"][0, 0] + params["mix"]["bias"]
    np.testing.assert_allclose(found, x + expected.reshape(x.shape), rtol=1e-4, atol=1e-4)


def test_resampling_is_a_strided_convolution_and_one_of_repeated_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    params = {"kernel": jax.random.normal(jax.random.key(1), (3, 3, 3, 5)), "bias": jnp.arange(5.0)}
    dimensions = ("NHWC", "HWIO", "NHWC")
    small = jax.lax.conv_general_dilated(x, params["kernel"], (2, 2), ((0, 1), (0, 1)), dimension_numbers=dimensions)
    np.testing.assert_allclose(halve(params, x), small + params["bias"], rtol=1e-4, atol=1e-4)
    large = conv(params, x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(double(params, x), large, rtol=1e-4, atol=1e-4)


def test_the_gradient_inside_a_scan_is_the_one_outside():
    chosen, params, z, t, c = tiny(attention=(2,), dropout=0.0)

    def grad(params):
        return jax.grad(lambda params: (chosen.apply(params, z, (t, c)) ** 2).sum())(params)

    outside = jax.jit(grad)(params)
    _, inside = jax.jit(lambda params: jax.lax.scan(lambda carry, _: (carry, grad(carry)), params, length=2))(params)
    sizes = jax.tree.map(lambda a: float(np.abs(a).max()), outside)
    assert min(jax.tree.leaves(sizes)) > 0  # every parameter matters
    for a, b, size in zip(*map(jax.tree.leaves, (outside, inside, sizes)), strict=True):
        np.testing.assert_allclose(b[1], a, rtol=1e-3, atol=1e-4 * size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample": "pool"}, "resample='pool': expected one of conv, block"),
        ({"memory": "invert"}, "memory='invert': expected one of store, remat"),
        ({"blocks": 0}, "blocks=0"),
        ({"multipliers": ()}, "expected 1 or more"),
        ({"multipliers": (1, 1, 1, 1)}, r"halve 4x4 pixels 3 times: give fewer multipliers.*data.image_size"),
        ({"attention": (4, 3)}, "no level has 3 pixels a side; there are 4, 2"),
        ({"heads": 3}, "heads=3 must divide the 16 channels"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
