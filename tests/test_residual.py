"""Spectral normalization, log-determinant estimates and fixed-point inverses of residual flows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import check_close, perturbed

from genflow import bijectors as bj
from genflow.networks import conv2d, lipschitz_conv, lipschitz_mlp
from genflow.networks.lipschitz import LipschitzNetwork, dense, spectral_norm

# name -> (linear function, kernel shape, shape of one input)
LINEAR = {
    "dense": (dense, (12, 7), (12,)),
    "3x3": (conv2d, (3, 3, 2, 3), (5, 4, 2)),
    "1x1": (conv2d, (1, 1, 3, 4), (2, 2, 3)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_spectral_norm_and_its_gradient_are_those_of_the_whole_matrix(name):
    linear, kernel_shape, shape = LINEAR[name]
    kernel = jax.random.normal(jax.random.key(3), kernel_shape)
    basis = jnp.eye(np.prod(shape)).reshape(-1, *shape)

    @jax.jit
    def everything(kernel):
        matrix = linear(basis, kernel).reshape(len(basis), -1)
        sigma, gradient = jax.value_and_grad(lambda kernel: spectral_norm(linear, kernel, shape, 1e-7, 5000))(kernel)
        # a 1x1 kernel's matrix repeats each singular value for each pixel: the direction is checked by its effect
        return matrix, spectral_norm(linear, kernel, shape), sigma, (gradient * kernel).sum()

    matrix, rough, sigma, directional = everything(kernel)
    exact = np.linalg.svd(np.asarray(matrix), compute_uv=False)[0]
    np.testing.assert_allclose(sigma, exact, rtol=1e-4)
    np.testing.assert_allclose(directional, exact, rtol=1e-4)  # sigma is homogeneous in the kernel
    assert 0.99 * exact < rough < 1.00001 * exact


def test_spectral_norm_of_a_zero_kernel_is_zero_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda kernel: spectral_norm(dense, kernel, (3,)))(jnp.zeros((3, 2)))
    assert value == 0
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize(
    ("network", "shape"), [(lipschitz_mlp((6, 6), 0.9), (3,)), (lipschitz_conv(4, 0.9), (3, 3, 2))]
)
def test_a_network_is_a_contraction_whatever_its_parameters(network, shape):
    x = 3.0 * jax.random.normal(jax.random.key(0), (8, *shape))
    net = network(shape[-1])

    @jax.jit
    def slopes(x):
        params = perturbed(net.init(jax.random.key(1), x), 2, 5.0)
        free = jax.jacrev(lambda one: net.apply(params, one[None])[0])
        bounded = jax.jacrev(lambda one: net.apply(net.constrain(params, x), one[None])[0])
        size = x[0].size
        return [jax.vmap(jacobian)(x).reshape(-1, size, size) for jacobian in (free, bounded)]

    free, bounded = (np.linalg.svd(np.asarray(j), compute_uv=False)[:, 0] for j in slopes(x))
    assert free.max() > 2
    assert 0.01 < bounded.max() < 0.9**3


def branch(weight, x):
    """A contraction of three dimensions without a network."""
    return jnp.tanh(x @ weight) * 0.8


def test_the_estimate_is_unbiased_in_value_and_gradient():
    weight = jnp.array([[0.5, 0.4, 0.0], [-0.5, 0.3, 0.3], [0.2, 0.0, -0.7]])
    x = jax.random.normal(jax.random.key(1), (2, 3))

    def total(log_det, key):
        def value(weight, x):
            _, pull = jax.vjp(lambda x: branch(weight, x), x)
            return log_det(pull, x, key).sum()

        return jax.value_and_grad(value, (0, 1))(weight, x)

    keys = jax.random.split(jax.random.key(2), 20_000)
    draws = jax.jit(jax.vmap(lambda key: total(bj.power_series(exact_terms=1), key)))(keys)
    exact = jax.jit(lambda: total(bj.exact_log_det, None))()
    for draw, truth in zip(jax.tree.leaves(draws), jax.tree.leaves(exact), strict=True):
        draw = np.asarray(draw, np.float64)
        error = draw.std(0) / np.sqrt(len(keys))
        assert (np.abs(draw.mean(0) - truth) < 4 * error + 1e-6).all()
        assert (error < 0.05 * np.abs(truth).max()).all()  # or the test would see nothing


def test_without_a_key_the_series_has_its_terms_and_no_randomness():
    slope = jnp.array([0.9, -0.3, 0.5, -0.6])
    x = jnp.ones((2, 4))
    _, pull = jax.vjp(lambda x: x * slope, x)  # a diagonal Jacobian: every probe gives the trace exactly
    k = np.arange(1, 21)[:, None]
    series = ((-1.0) ** (k + 1) / k * np.asarray(slope) ** k).sum()
    np.testing.assert_allclose(bj.power_series(terms=20)(pull, x), [series] * 2, rtol=1e-5)
    truncation = (np.abs(slope) ** 21 / (21 * (1 - np.abs(slope)))).sum()
    assert 0 < abs(series - np.log1p(slope).sum()) < truncation


def linear_network(slope):
    """g(x) = slope x, bounded by nothing."""
    return lambda features: LipschitzNetwork(
        lambda key, x, cond=None: {}, lambda params, x: params, lambda params, x, cond=None: slope * x
    )


def test_the_inverse_says_how_good_it_is_and_is_nan_without_a_contraction():
    z = jax.random.normal(jax.random.key(0), (4, 3))
    for slope in (-0.98, 0.5):
        bijector = bj.residual(linear_network(slope))
        np.testing.assert_allclose(bijector.inverse({}, z)[0], z / (1 + slope), rtol=2e-4)
        assert (np.asarray(bj.inverse_error(bijector, {}, z)) < 1e-4).all()
    assert np.isnan(np.asarray(bj.residual(linear_network(-1.5)).inverse({}, z)[0])).all()


def test_the_gradient_through_the_inverse_is_that_of_finite_differences():
    with jax.enable_x64(True):
        bijector = bj.residual(lipschitz_mlp((4,), 0.9))
        z, cond = (jax.random.normal(jax.random.key(i), (2, d), jnp.float64) for i, d in ((0, 3), (1, 2)))
        params = perturbed(bijector.init(jax.random.key(2), z, cond)[0], 3, 0.5)
        direction = jax.tree.map(
            lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), (params, z, cond)
        )

        @jax.jit
        def loss(params, z, cond):
            x, log_det = bijector.inverse(params, z, cond)
            return (jnp.sin(x) * jnp.arange(1.0, 4.0)).sum() + log_det.sum()

        gradient = jax.jit(jax.grad(loss, (0, 1, 2)))(params, z, cond)
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))

        def moved(step):
            return loss(*jax.tree.map(lambda a, d: a + step * d, (params, z, cond), direction))

        # the vectors of the spectral norm stop at a tolerance, which limits the derivative's
        np.testing.assert_allclose(along, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=2e-3)


def test_remat_gives_the_gradients_of_store_from_the_same_key():
    def gradient(memory):
        bijector = bj.repeat(bj.residual(lipschitz_mlp((4,), 0.9), bj.power_series()), 2, memory)
        x = jax.random.normal(jax.random.key(0), (3, 3))
        params = perturbed(bijector.init(jax.random.key(1), x)[0], 2, 0.3)

        def loss(params):
            z, log_det = bijector.forward(params, x, None, jax.random.key(3))
            return (z**2).sum() - log_det.sum()

        return jax.jit(jax.grad(loss))(params)

    check_close(gradient("remat"), gradient("store"), 1e-5)
