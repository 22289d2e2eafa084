"""NVAE: spectral regularization, depthwise convolutions, autoregressive shifts, depth as a scan, images of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import BINARY, NVAE, TABLE, evaluated, made

from genflow.core import Spec, combine, partition
from genflow.models import build
from genflow.models.latent import balance
from genflow.models.nvae_towers import Sizes, decoder, gaussian
from genflow.models.spectral import spectral_penalty
from genflow.networks.depthwise import depthwise_conv2d
from genflow.networks.nvae import autoregressive_shift, copies, randomized


def test_the_penalty_is_the_sum_of_largest_singular_values_and_of_largest_scales():
    rng = np.random.default_rng(0)
    kernel, masked = rng.normal(size=(2, 3, 3, 4, 5)), rng.normal(size=(1, 1, 4, 5))
    mask, scale = rng.integers(0, 2, (1, 1, 4, 5)), rng.normal(size=(3, 7))
    params = {"a": {"kernel": kernel, "bias": np.ones(5)}, "b": {"kernel": masked, "mask": mask}, "c": {"scale": scale}}
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.int8 if a.dtype == int else jnp.float32), params)
    penalty = spectral_penalty(0.5)
    state = penalty.init(jax.random.key(0), params)
    for _ in range(20):
        (value, state), gradient = jax.value_and_grad(penalty.apply, has_aux=True, allow_int=True)(params, state)
    matrices = [*kernel.reshape(2, 36, 5), (masked * mask)[0, 0]]
    u, s, v = zip(*(np.linalg.svd(m, full_matrices=False) for m in matrices), strict=True)
    np.testing.assert_allclose(value, 0.5 * (sum(x[0] for x in s) + np.abs(scale).max(1).sum()), rtol=1e-4)
    expected = 0.5 * np.outer(u[1][:, 0], v[1][0]).reshape(3, 3, 4, 5)
    np.testing.assert_allclose(gradient["a"]["kernel"][1], expected, atol=1e-3)
    np.testing.assert_allclose(np.abs(gradient["c"]["scale"]).sum(1), 0.5)
    assert not np.asarray(gradient["b"]["kernel"])[mask == 0].any()


def test_a_depthwise_convolution_is_the_native_one_and_so_are_its_gradients():
    x, kernel, g = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(2, 4, 6, 3), (5, 5, 1, 3), (2, 4, 6, 3)])
    )

    def native(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=3
        )

    ours, pull = jax.vjp(depthwise_conv2d, x, kernel)
    theirs, expected = jax.vjp(native, x, kernel)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for a, b in zip(pull(g), expected(g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_shift_sees_the_latents_before_and_no_other(mirrored):
    shift = autoregressive_shift(2, mirrored)
    z = jax.random.normal(jax.random.key(0), (1, 3, 3, 2))
    params = randomized(jax.random.key(1), shift.init(None, z))
    jacobian = jax.jacrev(lambda flat: shift.apply(params, flat.reshape(z.shape)).reshape(-1))(z.reshape(-1))
    order = np.arange(18).reshape(9, 2)[:: -1 if mirrored else 1].reshape(-1)
    jacobian = np.asarray(jacobian)[order][:, order]
    assert not np.triu(jacobian).any()
    assert (np.diag(jacobian, -1)[::2] != 0).all()  # the second channel of a pixel sees the first


def test_recomputed_groups_have_the_same_loss_and_gradients():
    section, spec = TABLE["nvae, flows"]
    _, _, params, state, batch = made("nvae, flows")
    assert section["memory"] == "remat"
    loss = build(section | {"memory": "store"}, spec).losses["model"]
    weights, constants = partition(params["model"])

    @jax.jit
    def stored(weights, key):
        return jax.value_and_grad(lambda w: loss({"model": combine(w, constants)}, state, key, batch)[0])(weights)

    value, gradient = stored(weights, jax.random.key(3))
    (expected, _), other = evaluated("nvae, flows")[0]["model"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_scan_over_groups_is_the_groups_one_after_the_other():
    sizes = Sizes(2, (3,), 2, 1, 0, 1, 0, "store")
    tower = decoder(sizes, 1)
    params = randomized(jax.random.key(0), tower.init(None, jnp.zeros((1, 2, 2, 2))))
    top, z = jnp.ones((1, 2, 2, 2)), jax.random.normal(jax.random.key(1), (2, 1, 2, 2, 2))

    def score(group, p, s, raw, z):
        return z, gaussian(raw).log_prob(z)

    _, (_, (_, scanned)) = jax.jit(lambda p: tower.apply(p, 1, score, [top, z]))(params)
    single = decoder(sizes._replace(groups=(2,)), 1)
    one_at_a_time = []
    for i in range(2):  # the group's own parameters, in a tower that has one group more than its top
        first = {"groups_0": jax.tree.map(lambda a, i=i: a[i : i + 1], params["groups_0"])}
        told = single.apply(params | first, 1, score, [top, z[i : i + 1]])[1]
        one_at_a_time.append(told[1][1][0])
    np.testing.assert_allclose(scanned[0], one_at_a_time[0], rtol=1e-5)
    assert (np.asarray(scanned[1]) != np.asarray(one_at_a_time[1])).all()  # it has seen what the first group drew


def test_margins_take_no_part_in_the_likelihood():
    spec = Spec("odd", (3, 5, 1), 2)
    model = build(NVAE | {"groups": (2,), "spectral": 0.0}, spec)
    x = jax.random.bernoulli(jax.random.key(0), 0.5, (2, *spec.shape)).astype(jnp.uint8)

    @jax.jit
    def both(key):
        params, state = model.init(key, {"x": x})
        z = model.latent.generate(params, state, key, 2)
        return model.latent.joint(params, state, key, z, {"x": x})[1], model.decode(params, state, z), z

    log_likelihood, mean, z = both(jax.random.key(1))
    assert [a.shape for a in z] == [(2, 2, 3, 2), (2, 1, 2, 3, 2)]  # the image of 4x6, halved
    mean = np.asarray(mean, np.float64)
    assert mean.shape == x.shape
    expected = np.where(np.asarray(x) > 0, np.log(mean), np.log1p(-mean)).sum((1, 2, 3))
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-4)


def test_every_group_has_its_own_temperature():
    model, _, params, state, _ = made("nvae")
    top, rest = jax.jit(lambda t: model.latent.generate(params, state, jax.random.key(0), 2, t))(
        jnp.array([0.0, 0.0, 1.0])
    )
    assert not np.asarray(top).any()  # the mode of the standard normal
    np.testing.assert_allclose(rest[0, 0], rest[1, 0], rtol=1e-5)
    assert (np.asarray(rest[0, 1]) != np.asarray(rest[1, 1])).any()


def test_balancing_weighs_levels_by_their_kl_over_their_share():
    weights = balance(jnp.array([[1.99, -1.99], [0.0, 0.0], [7.99, 7.99]]), (1.0, 1.0, 4.0))
    np.testing.assert_allclose(weights, 3 * np.array([2.0, 0.01, 2.0]) / 4.01, rtol=1e-5)


def test_copies_are_drawn_apart():
    kernel = randomized(jax.random.key(0), copies({"kernel": jnp.full((1, 1, 4, 2), 0.5)}, 2))["kernel"]
    assert (np.asarray(kernel[0]) != np.asarray(kernel[1])).all()
    assert np.abs(np.asarray(kernel, np.float64)).max() <= 0.5


@pytest.mark.parametrize(
    ("change", "spec", "message"),
    [
        ({}, Spec("points", (2,), None), "nvae models images; points has events"),
        ({"groups": (0,)}, BINARY, "must name at least one scale"),
        ({"channels": 0}, BINARY, "channels, cells and block_cells must be above zero"),
        ({"memory": "invert"}, BINARY, "memory='invert': expected one of store, remat"),
        ({"spectral": -1.0}, BINARY, "spectral=-1.0 must not be negative"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(change, spec, message):
    with pytest.raises(Exception, match=message):
        build(NVAE | change, spec)
