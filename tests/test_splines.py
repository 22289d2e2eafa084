"""Elementwise families in float32 where it is hard: identity, tails, edges, steep bins, NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import bijectors as bj

BOUND = 5.0
SPLINE, MIXTURE = bj.rational_quadratic_spline(8, BOUND), bj.mixture_cdf(8)
EXTREMES = (-np.inf, -3e38, -BOUND, BOUND, 1e4, np.inf)


def drawn(transform, scale):
    return scale * jax.random.normal(jax.random.key(1), (64, 32, transform.num_params))


@jax.jit
def spline_both(raw, x):
    return SPLINE.forward(raw, x), SPLINE.inverse(raw, x)


@jax.jit
def mixture_both(raw, x):
    return MIXTURE.forward(raw, x), MIXTURE.inverse(raw, x)


@jax.jit
def spline_gradients(raw, x):
    """Of z, x and both log-derivatives, with respect to raw and the argument."""
    return jax.grad(lambda raw, x: sum(a.sum() for a in jax.tree.leaves(spline_both(raw, x))), (0, 1))(raw, x)


def points(low, high):
    return jax.random.uniform(jax.random.key(2), (64, 32), minval=low, maxval=high)


def test_raw_zero_is_the_identity():
    x = points(-6.0, 6.0)
    for z, log_derivative in spline_both(jnp.zeros((64, 32, SPLINE.num_params)), x):
        np.testing.assert_allclose(np.asarray(z), np.asarray(x), atol=1e-6)
        np.testing.assert_allclose(np.asarray(log_derivative), 0.0, atol=1e-6)


def test_a_spline_passes_what_is_outside_and_its_gradients_are_finite():
    x = jnp.tile(jnp.array(EXTREMES), (64, 6))[:, :32]
    raw = drawn(SPLINE, 3.0)
    for z, log_derivative in spline_both(raw, x):
        np.testing.assert_array_equal(np.asarray(z), np.asarray(x))
        assert not np.asarray(log_derivative).any()
    grad_raw, grad_x = spline_gradients(raw, x)
    assert not np.asarray(grad_raw).any()
    np.testing.assert_array_equal(np.asarray(grad_x), 2.0)


def test_nan_is_never_hidden():
    x = points(-6.0, 6.0).at[3, 4].set(jnp.nan)
    for both, transform in ((spline_both, SPLINE), (mixture_both, MIXTURE)):
        for result in jax.tree.leaves(both(drawn(transform, 1.0), x)):
            assert np.argwhere(np.isnan(np.asarray(result))).tolist() == [[3, 4]]


def backward_error(both, raw, y, size=0.0):
    """(|f(f^-1(y)) - y| / (1 + |y|), what rounding to float32 costs: the slope times the spacing of x).

    size: of the numbers that a mixture adds to x and to z.
    """
    x, log_derivative = both(raw, y)[1]
    again = np.asarray(both(raw, x)[0][0])
    slope = np.exp(-np.asarray(log_derivative, np.float64))
    rounding = slope * np.spacing(1 + size + np.abs(np.asarray(x))) + np.spacing(np.float32(size))
    return np.abs(again - np.asarray(y)) / (1 + np.abs(np.asarray(y))), rounding


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize(("both", "transform"), [(spline_both, SPLINE), (mixture_both, MIXTURE)])
def test_backward_error(both, transform, scale):
    raw = drawn(transform, scale)
    error, _ = backward_error(both, raw, both(raw, points(-6.0, 6.0))[0][0])  # as a flow's own latents
    assert error.max() < (4e-6 if transform is SPLINE else 1e-5)
    # anywhere: where f is steep it magnifies the rounding of x
    error, rounding = backward_error(both, raw, points(-6.0, 6.0), 0.0 if transform is SPLINE else scale)
    assert (error < 1e-6 + 3.0 * rounding).all()


def test_either_bin_serves_at_an_edge():
    raw = drawn(SPLINE, 1.0)
    widths = np.asarray(jax.nn.softmax(raw[..., :8]), np.float64) * (1 - 8e-3) + 1e-3
    edges = np.float32(np.cumsum(widths, -1)[..., 2] * 2 * BOUND - BOUND)
    for x in (np.nextafter(edges, np.float32(-9)), edges, np.nextafter(edges, np.float32(9))):
        z, log_derivative = spline_both(raw, x)[0]
        with jax.enable_x64(True):
            exact, exact_log_derivative = spline_both(raw.astype(jnp.float64), x.astype(np.float64))[0]
        slope = np.exp(np.asarray(exact_log_derivative))
        assert (np.abs(np.asarray(z) - np.asarray(exact)) < 2e-6 * (1 + slope)).all()
        np.testing.assert_allclose(np.asarray(log_derivative), np.asarray(exact_log_derivative), atol=2e-3)
        error, rounding = backward_error(spline_both, raw, z)
        assert (error < 1e-6 + 3.0 * rounding).all()


def test_the_written_derivative_of_a_spline_is_its_difference_quotient():
    with jax.enable_x64(True):
        raw = jax.random.normal(jax.random.key(0), (40, 1, SPLINE.num_params), jnp.float64)
        x = jax.random.uniform(jax.random.key(1), (40, 1), jnp.float64, -4.5, 4.5)
        direction = jax.random.normal(jax.random.key(2), raw.shape, jnp.float64)
        weights = jnp.array([1.0, 0.7, -0.3, 0.4])  # of z, its log-derivative, and those of the inverse

        def total(raw, x):
            return sum(w * a.sum() for w, a in zip(weights, jax.tree.leaves(spline_both(raw, x)), strict=True))

        grad_raw, grad_x = jax.jit(jax.grad(total, (0, 1)))(raw, x)
        step = 1e-6
        along_raw = (total(raw + step * direction, x) - total(raw - step * direction, x)) / (2 * step)
        along_x = (total(raw, x + step) - total(raw, x - step)) / (2 * step)
        np.testing.assert_allclose(float((grad_raw * direction).sum()), float(along_raw), rtol=1e-5)
        np.testing.assert_allclose(float(grad_x.sum()), float(along_x), rtol=1e-5)


@pytest.mark.parametrize(("both", "transform"), [(spline_both, SPLINE), (mixture_both, MIXTURE)])
def test_the_inverse_has_the_gradient_of_the_implicit_function(both, transform):
    with jax.enable_x64(True):
        raw = jax.random.normal(jax.random.key(0), (20, 1, transform.num_params), jnp.float64)
        z = jax.random.uniform(jax.random.key(1), (20, 1), jnp.float64, -4.0, 4.0)

        def there_and_back(raw, z):
            return both(raw, both(raw, z)[1][0])[0][0].sum()

        grad_raw, grad_z = jax.grad(there_and_back, (0, 1))(raw, z)
        np.testing.assert_allclose(np.asarray(grad_raw), 0.0, atol=1e-8)
        np.testing.assert_allclose(np.asarray(grad_z), 1.0, atol=1e-8)


def test_mixture_cdf_holds_its_tails():
    x = jnp.tile(jnp.array([-1e4, -50.0, -20.0, 20.0, 50.0, 1e4]), (64, 6))[:, :32]
    raw = drawn(MIXTURE, 0.3)
    z, log_derivative = mixture_both(raw, x)[0]
    with jax.enable_x64(True):
        exact = mixture_both(raw.astype(jnp.float64), x.astype(jnp.float64))[0]
    np.testing.assert_allclose(np.asarray(z), np.asarray(exact[0]), rtol=2e-6)
    np.testing.assert_allclose(np.asarray(log_derivative), np.asarray(exact[1]), atol=2e-6)
    np.testing.assert_allclose(np.asarray(mixture_both(raw, z)[1][0]), np.asarray(x), rtol=1e-5)


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_logit_is_exact_at_both_ends(alpha):
    bijector = bj.logit(alpha)
    inside = (np.arange(256)[:, None] + np.array([0.0, 2.0**-24, 0.5, 1 - 2.0**-24])) / 256 - 0.5
    x = np.concatenate([inside.reshape(-1), [0.5, np.nextafter(np.float32(0.5), np.float32(0))]]).astype(np.float32)
    z, log_det = bijector.forward({}, x[:, None])
    p = alpha + (1 - 2 * alpha) * (x.astype(np.float64) + 0.5)
    np.testing.assert_allclose(np.asarray(z)[:, 0], np.log(p) - np.log1p(-p), atol=2e-6, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(log_det), np.log1p(-2 * alpha) - np.log(p) - np.log1p(-p), rtol=1e-6)
    back, log_det_inverse = bijector.inverse({}, z)
    np.testing.assert_allclose(np.asarray(back)[:, 0], x, atol=2e-7)
    np.testing.assert_allclose(np.asarray(log_det + log_det_inverse), 0.0, atol=5e-6)
    assert np.isfinite(np.asarray(bijector.inverse({}, jnp.array([[-1e3], [1e3]]))[1])).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bj.rational_quadratic_spline(0, 3.0), "bins=0"),
        (lambda: bj.rational_quadratic_spline(2000, 3.0), "below 1 / bins"),
        (lambda: bj.mixture_cdf(0), "components=0"),
        (lambda: bj.logit(0.0), "alpha=0.0"),
        (lambda: bj.leaky_relu(0.0), "slope=0.0"),
        (lambda: bj.smooth_leaky_relu(1.0), "slope=1.0"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("build", [bj.smooth_leaky_relu, lambda: bj.elementwise(bj.sinh_arcsinh())])
def test_smooth_activations_are_inverted_far_out(build):
    bijector = build()
    x = jnp.array([-1e30, -1e6, -30.0, -1e-6, 0.0, 1e-6, 30.0, 1e6, 1e30])[:, None]
    params, z = bijector.init(jax.random.key(0), x)
    back, log_det = bijector.inverse(params, z)
    np.testing.assert_allclose(np.asarray(back), np.asarray(x), rtol=2e-5, atol=1e-12)
    assert np.isfinite(np.asarray(log_det)).all()
