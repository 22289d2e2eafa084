"""Linear bijectors beyond the table of bijectors, and splits: what they are, and how exact in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import bijectors as bj
from genflow.networks import mlp


def matrix(bijector, params, size):
    """W of z = W x."""
    return np.asarray(bijector.forward(params, jnp.eye(size))[0]).T


def test_householder_is_a_product_of_reflections():
    bijector = bj.householder(3)
    params, _ = bijector.init(jax.random.key(0), jnp.zeros((1, 5)))
    expected = np.eye(5)
    for v in np.asarray(params["vectors"], np.float64).T:
        expected = expected @ (np.eye(5) - 2.0 * np.outer(v, v) / (v @ v))
    np.testing.assert_allclose(matrix(bijector, params, 5), expected, atol=1e-6)


def test_rotations_keep_lengths_however_large_their_parameters():
    for bijector in (bj.cayley(), bj.householder(6)):
        params, _ = bijector.init(jax.random.key(0), jnp.zeros((1, 6)))
        large = jax.tree.map(lambda a: 50.0 * jax.random.normal(jax.random.key(1), a.shape), params)
        rotation = matrix(bijector, large, 6)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(6), atol=3e-6)


@pytest.mark.parametrize("build", [bj.conv1x1_plain, bj.lu_linear, bj.qr_linear])
def test_linear_solves_are_backward_stable(build):
    """An ill-conditioned W in float32: W x_back is z, and log |det| is that of the same W in float64."""
    bijector, size = build(), 16
    params, _ = bijector.init(jax.random.key(0), jnp.zeros((1, size)))
    if build is bj.conv1x1_plain:
        params = {"weight": params["weight"] * jnp.logspace(0, -4, size)}
    else:
        params = params | {"log_diag": jnp.linspace(0.0, -9.2, size)}
    z = jax.random.normal(jax.random.key(1), (8, size))
    x, log_det = bijector.inverse(params, z)
    w = matrix(bijector, params, size).astype(np.float64)
    assert np.linalg.cond(w) > 3e3
    residual = np.abs(np.asarray(x, np.float64) @ w.T - np.asarray(z))
    assert (residual < 3e-6 * (np.abs(np.asarray(x)) @ np.abs(w).T + np.abs(np.asarray(z)))).all()
    np.testing.assert_allclose(np.asarray(log_det), -np.linalg.slogdet(w)[1], atol=1e-3)


def test_permutations():
    bijector = bj.permutation()
    params, z = bijector.init(jax.random.key(3), jnp.arange(8.0)[None])
    assert params["order"].dtype == jnp.int32
    assert sorted(np.asarray(z)[0].tolist()) == list(range(8)) != np.asarray(z)[0].tolist()
    np.testing.assert_array_equal(np.asarray(bijector.inverse(params, z)[0]), np.arange(8.0)[None])
    with pytest.raises(ValueError, match="not a permutation"):
        bj.permutation((0, 2))
    with pytest.raises(ValueError, match="2 entries, the last axis of x 3"):
        bj.permutation((1, 0)).forward({}, jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="num_reflections=0"):
        bj.householder(0)


def test_both_forms_of_the_checkerboard():
    image = jnp.arange(8).reshape(1, 2, 4, 1)  # 0 1 2 3 / 4 5 6 7
    compact, masked = bj.checkerboard(), bj.checkerboard(masked=True)
    passed, changed = compact.split(image)
    assert passed[0, ..., 0].tolist() == [[0, 2], [5, 7]]
    assert changed[0, ..., 0].tolist() == [[1, 3], [4, 6]]
    assert masked.split(image)[0][0, ..., 0].tolist() == [[0, 0, 2, 0], [0, 5, 0, 7]]
    assert masked.select(image).tolist() == masked.split(image)[1].tolist() == changed.tolist()
    with pytest.raises(ValueError, match="2x3 has an odd width"):
        compact.split(jnp.zeros((1, 2, 3, 1)))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    "split",
    [
        bj.checkerboard,
        lambda swap: bj.checkerboard(swap, masked=True),
        bj.halves,
        lambda swap: bj.halves(swap, axis=1),
        bj.alternating,
        lambda swap: bj.alternating(swap, axis=2),
    ],
)
def test_splits_put_together_what_they_cut(split, swap):
    for channels in (2, 3):
        x = jnp.arange(32 * channels).reshape(2, 4, 4, channels)
        passed, changed = split(swap).split(x)
        np.testing.assert_array_equal(np.asarray(split(swap).merge(passed, changed)), np.asarray(x))
        other = split(not swap).split(x)[1]
        assert sorted([*changed.reshape(-1).tolist(), *other.reshape(-1).tolist()]) == x.reshape(-1).tolist()


@pytest.mark.parametrize("split", [bj.halves, bj.alternating])
def test_only_the_last_axis_may_be_odd(split):
    assert [part.shape for part in split().split(jnp.zeros((2, 5)))] == [(2, 3), (2, 2)]
    with pytest.raises(ValueError, match="axis=1 of size 3"):
        split(axis=1).split(jnp.zeros((2, 3, 4)))


def test_learned_tanh_starts_volume_preserving_and_learns():
    bijector = bj.coupling(bj.affine(lambda log_scale: log_scale), bj.learned_tanh(mlp((4,))))
    x = jax.random.normal(jax.random.key(0), (8, 4))
    params, z = bijector.init(jax.random.key(1), x)
    assert np.abs(np.asarray(z - x)).max() > 0.1
    assert not np.asarray(bijector.forward(params, x)[1]).any()
    grads = jax.grad(lambda params: bijector.forward(params, x)[1].sum())(params)
    assert float(grads["scale"]) != 0.0
