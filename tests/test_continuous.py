"""Continuous flows against the closed form of a linear equation."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from genflow import bijectors as bj
from genflow.core import Network
from genflow.sharding import batch_sharding, make_mesh

MATRIX = np.array([[0.3, 1.0, 0.0], [-1.0, 0.2, 0.5], [0.0, -0.4, -0.9]])


def linear(features):
    """dx/dt = A x, whatever the time."""
    return Network(lambda key, x, cond=None: {"A": jnp.asarray(MATRIX, x.dtype)}, lambda p, x, cond=None: x @ p["A"].T)


def explosive(features):
    """dx/dt = x^3 reaches infinity before t = 1 where x(0)^2 > 1/2."""
    return Network(lambda key, x, cond=None: {}, lambda params, x, cond=None: x**3)


def test_a_linear_equation_has_its_closed_form_both_ways():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (4, 3), jnp.float64)
        bijector = bj.continuous(linear, rtol=1e-9, atol=1e-9)

        @jax.jit
        def everything(x):
            params, z = bijector.init(jax.random.key(1), x)

            def loss(params, x):
                z, log_det = bijector.forward(params, x)
                return (z * jnp.arange(1.0, 4.0)).sum() + log_det[0], log_det

            gradient, log_det = jax.grad(loss, (0, 1), has_aux=True)(params, x)
            return z, log_det, gradient, bijector.inverse(params, z)

        z, log_det, (grad_params, grad_x), (back, log_det_inverse) = everything(x)
        flow = scipy.linalg.expm(MATRIX)
        np.testing.assert_allclose(z, np.asarray(x) @ flow.T, atol=1e-8)
        np.testing.assert_allclose(log_det, np.full(4, np.trace(MATRIX)), atol=1e-12)
        np.testing.assert_allclose(log_det_inverse, -np.asarray(log_det), atol=1e-12)
        np.testing.assert_allclose(back, x, atol=1e-8)
        np.testing.assert_allclose(grad_x, np.tile(np.arange(1.0, 4.0) @ flow, (4, 1)), atol=1e-7)
        # d/dA of c^T exp(A) x by the block matrix of Frechet derivatives, and the identity for the trace of A
        outer = np.asarray(x).sum(0)[:, None] * np.arange(1.0, 4.0)
        frechet = scipy.linalg.expm_frechet(MATRIX, outer, compute_expm=False).T
        np.testing.assert_allclose(grad_params["A"], frechet + np.eye(3), atol=1e-7)


def test_the_mean_over_probes_is_the_trace_and_each_probe_lasts_a_whole_solution():
    x = jnp.ones((2, 3))
    params = {"A": jnp.asarray(MATRIX, jnp.float32)}
    bijector = bj.continuous(linear, bj.one_direction)
    draws = jax.jit(jax.vmap(lambda key: bijector.forward(params, x, None, key)[1]))
    log_dets = np.asarray(draws(jax.random.split(jax.random.key(0), 4_000)), np.float64)
    error = log_dets.std(0) / np.sqrt(len(log_dets))
    assert (error > 0).all()
    assert (np.abs(log_dets.mean(0) - np.trace(MATRIX)) < 4 * error).all()
    # v^T A v of one fixed v, not an average over many
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    values = np.einsum("vi,ij,vj->v", signs, MATRIX, signs)
    distance = np.abs(log_dets[:, :, None] - values).min(-1)
    assert distance.max() < 1e-4


def test_evaluations_are_counted_and_tolerances_cost():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params = {"A": 5.0 * jnp.asarray(MATRIX, jnp.float32)}
    counts = {
        (probes, tolerance): int(bj.function_evaluations(linear, params, x, None, probes, tolerance, tolerance))
        for probes, tolerance in ((bj.every_direction, 1e-2), (bj.every_direction, 1e-5), (bj.one_direction, 1e-5))
    }
    coarse, fine, estimated = counts.values()
    assert 8 <= coarse < fine
    assert estimated <= 1.2 * fine


def test_a_solution_that_does_not_exist_is_nan():
    z, log_det = jax.jit(bj.continuous(explosive).forward)({}, jnp.full((2, 2), 3.0))
    assert np.isnan(np.asarray(z)).all()
    assert np.isnan(np.asarray(log_det)).all()


def test_a_batch_over_eight_devices_is_the_batch_on_one():
    mesh = make_mesh(8, 1)
    x = jax.random.normal(jax.random.key(0), (16, 3))
    params = {"A": jnp.asarray(MATRIX, jnp.float32)}
    forward = jax.jit(bj.continuous(linear).forward)
    sharded = forward(params, jax.device_put(x, batch_sharding(mesh)))
    assert len(sharded[0].sharding.device_set) == 8
    for a, b in zip(sharded, forward(params, x), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5)
