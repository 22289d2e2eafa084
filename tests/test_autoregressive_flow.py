"""Masked networks see what they may, their incremental inverse is the D-pass one, the flows refuse nonsense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow import bijectors as bj
from genflow.bijectors import autoregressive
from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.networks import made, residual_made, residual_mlp
from genflow.networks.made import mask, masked_product

B = 4
# (dims, network, size of cond): few units, units that dims do not divide, one dim, products in blocks
CASES = {
    "wide": (4, lambda: made((6, 9, 6), jnp.tanh), 0),
    "narrow": (9, lambda: made((3, 5)), 0),
    "conditional": (6, lambda: made((7, 11)), 3),
    "one dimension": (1, lambda: made((4,)), 2),
    "residual": (5, lambda: residual_made(8, 2), 2),
    "blocks": (3, lambda: made((300, 260)), 0),
}


def case(name, transform):
    """(bijector, perturbed params, x, cond)"""
    dims, network, cond_dims = CASES[name]
    bijector = bj.masked_autoregressive(transform, network())
    x = jax.random.normal(jax.random.key(0), (B, dims))
    cond = jax.random.normal(jax.random.key(1), (B, cond_dims)) if cond_dims else None
    params, _ = bijector.init(jax.random.key(2), x, cond)
    return bijector, perturbed(params, 3, 0.3 if name != "blocks" else 0.03), x, cond


def inverse_in_dims_passes(bijector, params, z, cond):
    """The oracle: dimension d of the answer is right after d + 1 passes."""

    def body(d, x):
        at = jnp.stack([x.at[:, d].set(v) for v in (0.0, 1.0)])
        probe = jax.vmap(lambda x: bijector.forward(params, x, cond)[0][:, d])(at)
        return x.at[:, d].set((z[:, d] - probe[0]) / (probe[1] - probe[0]))  # affine in x_d

    return jax.lax.fori_loop(0, z.shape[1], body, jnp.zeros_like(z))


@pytest.mark.parametrize("name", CASES)
def test_the_inverse_is_the_one_of_a_pass_for_each_dimension(name):
    bijector, params, x, cond = case(name, bj.gaussian())

    @jax.jit
    def everything(params, x, cond):
        z, log_det = bijector.forward(params, x, cond)
        jacobian = jax.vmap(jax.jacrev(lambda x, c: one(params, x, c)))(x, cond)
        return (
            z,
            log_det,
            bijector.inverse(params, z, cond),
            inverse_in_dims_passes(bijector, params, z, cond),
            jacobian,
        )

    def one(params, x, cond):
        return bijector.forward(params, x[None], None if cond is None else cond[None])[0][0]

    z, log_det, (back, log_det_inverse), expected, jacobian = jax.tree.map(np.asarray, everything(params, x, cond))
    np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det + log_det_inverse, 0, atol=1e-5)
    np.testing.assert_array_equal(np.triu(jacobian, 1), 0)
    np.testing.assert_allclose(np.log(np.diagonal(jacobian, axis1=1, axis2=2)).sum(1), log_det, atol=1e-5)
    if name in ("wide", "blocks"):  # with more units than levels, all that may be seen is seen
        assert (jacobian[:, *np.tril_indices(x.shape[1])] != 0).mean() > 0.9


def test_a_large_batch_in_chunks_is_the_same_batch(monkeypatch):
    bijector, params, x, cond = case("conditional", bj.gaussian())
    x, cond = jnp.tile(x, (2, 1))[:7] + jnp.arange(7.0)[:, None], jnp.tile(cond, (2, 1))[:7]
    expected = jax.tree.map(np.asarray, jax.jit(bijector.inverse)(params, x, cond))
    monkeypatch.setattr(autoregressive, "CHUNK", 3)
    found = jax.jit(lambda *a: bijector.inverse(*a))(params, x, cond)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-5, atol=1e-5)


def test_the_triangle_follows_the_order():
    order = (2, 0, 3, 1)
    bijector = bj.gaussian_autoregressive(made((16,), jnp.tanh), order)
    x = jax.random.normal(jax.random.key(0), (B, 4))
    params = perturbed(bijector.init(jax.random.key(1), x)[0], 2, 0.5)
    jacobian = np.asarray(jax.jacrev(lambda x: bijector.forward(params, x[None])[0][0])(x[0]))
    sees = jacobian != 0
    for place, dim in enumerate(order):
        assert set(np.flatnonzero(sees[dim])) == set(order[: place + 1])


def test_the_first_dimension_of_a_conditional_flow_depends_on_the_condition():
    bijector, params, x, cond = case("conditional", bj.gaussian())
    z = np.asarray(bijector.forward(params, x, cond)[0][:, 0])
    other = np.asarray(bijector.forward(params, x, cond + 1)[0][:, 0])
    assert (np.abs(z - other) > 1e-3).all()


def test_a_flow_with_an_inverse_autoregressive_layer_samples_in_one_pass():
    layer = bj.masked_autoregressive(bj.gaussian(), made((8,)))
    inverted, x = bj.invert(layer), jax.random.normal(jax.random.key(0), (B, 5))
    params = perturbed(inverted.init(jax.random.key(1), x)[0], 2, 0.3)
    assert "while" in str(jax.make_jaxpr(inverted.forward)(params, x)) or "scan" in str(
        jax.make_jaxpr(inverted.forward)(params, x)
    )
    sampling = str(jax.make_jaxpr(inverted.inverse)(params, x))
    assert "while" not in sampling
    assert "scan" not in sampling


@pytest.mark.parametrize("shape", [(5, 600, 300), (7, 43, 512), (3, 512, 86), (4, 256, 256)])
def test_a_product_in_blocks_is_the_masked_product_in_value_and_gradients(shape):
    rows, inputs, outputs = shape
    levels_in, levels_out = np.sort(np.arange(inputs) % 11), np.sort(np.arange(outputs) % 11)
    key = jax.random.split(jax.random.key(0), 3)
    with jax.enable_x64(True):
        h, kernel, g = (
            jax.random.normal(k, s, jnp.float64)
            for k, s in zip(key, [(rows, inputs), (inputs, outputs), (rows, outputs)], strict=True)
        )

        @jax.jit
        def both(h, kernel, g):
            def plain(h, kernel):
                return h @ (kernel * mask(levels_in, levels_out))

            def blocks(h, kernel):
                return masked_product(h, kernel, levels_in, levels_out)

            return [(f(h, kernel), jax.vjp(f, h, kernel)[1](g)) for f in (plain, blocks)]

        expected, found = both(h, kernel, g)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-12, atol=1e-12)


def test_samples_stay_finite_where_free_log_scales_overflow():
    x = jax.random.normal(jax.random.key(0), (64, 21))
    stack = bj.repeat(bj.chain(bj.masked_autoregressive(bj.gaussian(), made((64, 64))), bj.flip()), 10)
    params, _ = stack.init(jax.random.key(1), x)
    samples = jax.jit(stack.inverse)(perturbed(params, 2, 0.3), x)[0]
    assert np.isfinite(np.asarray(samples)).all()


@pytest.mark.parametrize(
    "build_network", [lambda: residual_mlp(16, 1, 0.5)(3), lambda: residual_made(16, 1, dropout=0.5)(3)]
)
def test_dropout_happens_where_a_key_is_given(build_network):
    network, x = build_network(), jax.random.normal(jax.random.key(0), (B, 4))
    params = perturbed(network.init(jax.random.key(1), x), 2, 0.5)
    plain, same = (np.asarray(network.apply(params, x)) for _ in range(2))
    draws = [np.asarray(network.apply(params, x, None, jax.random.key(i))) for i in (0, 0, 1)]
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    assert (draws[0] != plain).any()


VECTORS, IMAGES, MAPS = Spec("v", (4,), None), Spec("i", (4, 4, 1), 8), Spec("m", (4, 4, 1), None)


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        ({"name": "maf", "activation": "gelu"}, VECTORS, "activation='gelu': expected one of leaky_relu, relu"),
        ({"name": "maf"}, MAPS, "models vectors of two dimensions or more, or images"),
        ({"name": "maf", "depth": 0}, VECTORS, "depth=0"),
        ({"name": "maf", "alpha": 0.5}, IMAGES, "alpha=0.5"),
        ({"name": "nsf"}, IMAGES, "models continuous vectors; i is discrete"),
        ({"name": "nsf", "blocks": 0}, VECTORS, "must be above zero"),
        ({"name": "nsf", "dropout": 1.0}, VECTORS, "dropout=1.0 must be in"),
        ({"name": "nsf", "bins": 0}, VECTORS, "bins=0"),
        ({"name": "nsf", "dropout": 0.1, "autoregressive": True, "memory": "invert"}, VECTORS, "use 'remat'"),
    ],
)
def test_a_section_that_does_not_fit_is_refused_by_name(section, spec, message):
    with pytest.raises(UserError, match=message):
        build(section, spec)
