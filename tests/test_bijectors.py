"""One table for every bijector: round trip, log-det against autodiff, cancellation, jit, gradients, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import bijectors as bj
from genflow.core import combine, partition
from genflow.networks import (
    concatsquash_mlp,
    gated_attention,
    glow_conv,
    lipschitz_conv,
    lipschitz_mlp,
    made,
    mlp,
    residual_made,
    resnet,
    transformer,
    zero_conv,
)

BATCH = 3
INIT_BATCH = 16  # data-dependent initialization needs enough examples for a standard deviation
IMAGE, VECTOR, TOKENS = (4, 4, 2), (5,), (4, 2)
AFFINE = bj.affine(bj.sigmoid_scale)
JET = bj.affine(bj.double_sigmoid_scale)
UNIT = bj.affine(lambda log_scale: log_scale)


def glow_step():
    return bj.chain(actnorm=bj.actnorm(), conv=bj.conv1x1(), coupling=bj.coupling(AFFINE, glow_conv(2)))


def multi_scale():
    bottom = bj.chain(bj.squeeze(), glow_step(), bj.channel_affine())
    return bj.chain(bj.squeeze(), bj.repeat(glow_step(), 2), bj.split_prior(zero_conv()), bj.factor_out(bottom))


# name -> (constructor, event shape, cond shape or None). A new bijector adds one row.
TABLE = {
    "actnorm": (bj.actnorm, IMAGE, None),
    "actnorm, vector": (bj.actnorm, VECTOR, None),
    "additive coupling": (lambda: bj.coupling(bj.additive(), glow_conv(2)), IMAGE, None),
    "affine coupling": (lambda: bj.coupling(AFFINE, glow_conv(2)), IMAGE, None),
    "affine coupling, conditional": (lambda: bj.coupling(AFFINE, glow_conv(2)), IMAGE, (3,)),
    "affine coupling, resnet": (lambda: bj.coupling(AFFINE, resnet(4, 1)), IMAGE, (3,)),
    "affine coupling, swapped": (lambda: bj.coupling(AFFINE, glow_conv(2), bj.halves(swap=True)), IMAGE, None),
    "affine coupling, alternating": (
        lambda: bj.coupling(AFFINE, mlp((4,), zero_last=True), bj.alternating(swap=True)),
        VECTOR,
        None,
    ),
    "affine coupling, checkerboard": (lambda: bj.coupling(AFFINE, zero_conv(), bj.checkerboard()), IMAGE, None),
    "affine coupling, learned tanh, masked checkerboard": (
        lambda: bj.coupling(UNIT, bj.learned_tanh(zero_conv()), bj.checkerboard(swap=True, masked=True)),
        IMAGE,
        None,
    ),
    "affine coupling, tanh, vector": (
        lambda: bj.coupling(bj.affine(bj.tanh_scale()), mlp((8,), zero_last=True)),
        VECTOR,
        (2,),
    ),
    "cayley": (bj.cayley, VECTOR, None),
    "chain": (lambda: bj.chain(bj.actnorm(), bj.flip(), bj.channel_affine()), IMAGE, None),
    "channel_affine": (bj.channel_affine, IMAGE, None),
    "conv1x1": (bj.conv1x1, IMAGE, None),
    "conv1x1, vector": (bj.conv1x1, VECTOR, None),
    "conv1x1_plain": (bj.conv1x1_plain, IMAGE, None),
    "elementwise, mixture_cdf": (lambda: bj.elementwise(bj.mixture_cdf(3)), VECTOR, None),
    "elementwise, sinh_arcsinh": (lambda: bj.elementwise(bj.sinh_arcsinh()), VECTOR, None),
    "elementwise, spline": (lambda: bj.elementwise(bj.rational_quadratic_spline(3, 2.0)), VECTOR, None),
    "factor_out": (lambda: bj.factor_out(bj.actnorm()), IMAGE, None),
    "flip": (bj.flip, IMAGE, None),
    "glow, multi-scale": (multi_scale, (4, 4, 1), None),
    "histogram_gaussianization": (lambda: bj.histogram_gaussianization(5), IMAGE, None),
    "householder": (lambda: bj.householder(2), IMAGE, None),
    "identity": (bj.identity, IMAGE, None),
    "invert": (lambda: bj.invert(bj.actnorm()), IMAGE, None),
    "jet coupling, channels": (lambda: bj.coupling(JET, transformer(4, 1, 1)), TOKENS, None),
    "jet coupling, tokens": (lambda: bj.coupling(JET, transformer(4, 1, 2), bj.halves(True, axis=1)), TOKENS, (3,)),
    "leaky_relu": (bj.leaky_relu, VECTOR, None),
    "logit": (lambda: bj.logit(0.05), VECTOR, None),
    "lu_linear": (bj.lu_linear, VECTOR, None),
    "parity_order": (lambda: bj.parity_order(2, 4), (8, 2), None),
    "maf, in repeat": (
        lambda: bj.repeat(bj.chain(bj.masked_autoregressive(bj.gaussian(), made((7,))), bj.flip()), 2, "remat"),
        VECTOR,
        (2,),
    ),
    "masked_autoregressive, gaussian": (
        lambda: bj.gaussian_autoregressive(made((6, 4), jnp.tanh), order=(1, 4, 0, 3, 2)),
        VECTOR,
        None,
    ),
    "masked_autoregressive, spline": (
        lambda: bj.masked_autoregressive(bj.rational_quadratic_spline(3, 2.0), residual_made(6, 1)),
        VECTOR,
        (2,),
    ),
    "masked_autoregressive, forget_gate": (
        lambda: bj.masked_autoregressive(bj.forget_gate(), made((6,))),
        VECTOR,
        (2,),
    ),
    "on_passed": (lambda: bj.on_passed(bj.halves(), bj.shift_scale()), VECTOR, None),
    "patchify": (lambda: bj.patchify(2, 4, 6), (4, 6, 2), None),
    "permutation": (bj.permutation, IMAGE, None),
    "permutation, given": (lambda: bj.permutation((4, 2, 0, 1, 3)), VECTOR, None),
    "planar": (bj.planar, VECTOR, None),
    "planar, conditional": (lambda: bj.repeat(bj.planar(), 2), VECTOR, (2,)),
    "qr_linear": (bj.qr_linear, VECTOR, None),
    "repeat, store": (lambda: bj.repeat(glow_step(), 2, "store"), IMAGE, (3,)),
    "repeat, remat": (lambda: bj.repeat(glow_step(), 2, "remat"), IMAGE, (3,)),
    "repeat, without parameters": (lambda: bj.repeat(bj.flip(), 3, "invert"), IMAGE, None),
    "repeat, invert": (lambda: bj.repeat(glow_step(), 2, "invert"), IMAGE, (3,)),
    "rotate_parity": (bj.rotate_parity, (8, 2), None),
    "shift_scale": (bj.shift_scale, IMAGE, None),
    "smooth_leaky_relu": (bj.smooth_leaky_relu, VECTOR, None),
    "spline coupling": (
        lambda: bj.coupling(bj.rational_quadratic_spline(3, 2.0), mlp((4,), zero_last=True)),
        VECTOR,
        (2,),
    ),
    "split_prior": (lambda: bj.split_prior(zero_conv()), IMAGE, None),
    "squeeze": (bj.squeeze, IMAGE, None),
    "token_autoregressive": (lambda: bj.token_autoregressive(AFFINE, transformer(4, 2, 2, causal=True)), TOKENS, (3,)),
    "continuous": (lambda: bj.continuous(concatsquash_mlp((4,)), rtol=1e-11, atol=1e-11), VECTOR, (2,)),
    "residual": (lambda: bj.residual(lipschitz_mlp((4,))), VECTOR, (2,)),
    "residual, convolution": (lambda: bj.residual(lipschitz_conv(3)), IMAGE, (3,)),
}
UNIT_INTERVAL = ("histogram_gaussianization", "logit")  # defined on [-1/2, 1/2) only


def perturbed(params, seed, scale=0.05):
    """Noise on every trainable leaf: zero-initialized layers would pass every test as identities.

    It is numpy's, put and not converted: a program for the shape of every leaf costs more than what it is needed for.
    """
    weights, constants = partition(params)
    random = np.random.default_rng(seed)

    def noisy(a):
        noise = (scale * random.normal(size=a.shape)).astype(a.dtype)
        return a + noise if isinstance(a, jax.core.Tracer) else jax.device_put(np.asarray(a) + noise)

    return combine(jax.tree.map(noisy, weights), constants)


def example(name, dtype):
    """(bijector, x, cond) of a row, with INIT_BATCH examples."""
    build, shape, cond_shape = TABLE[name]
    key_x, key_cond = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (INIT_BATCH, *shape), dtype)
    x = 0.49 * jnp.tanh(x) if name in UNIT_INTERVAL else x
    cond = None if cond_shape is None else jax.random.normal(key_cond, (INIT_BATCH, *cond_shape), dtype)
    return build(), x, cond


def first(a):
    """The first BATCH examples."""
    return None if a is None else a[:BATCH]


def flat(tree):
    """[B, total] of a tree of latents."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)], axis=1)


def check_close(a, b, tolerance):
    """Compares through numpy: jnp.max loses NaN on CPU for 4,096 elements or more."""
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", TABLE)
def test_properties_in_float64(name):
    with jax.enable_x64(True):
        bijector, x, cond = example(name, jnp.float64)

        @jax.jit
        def everything(x_init, cond_init):
            fresh, z_init = bijector.init(jax.random.key(1), x_init, cond_init)
            params, x, cond = perturbed(fresh, 2), first(x_init), first(cond_init)
            z, log_det = bijector.forward(params, x, cond)
            back, log_det_inverse = bijector.inverse(params, z, cond)

            def one(x, cond):
                batched = None if cond is None else cond[None]
                return flat(bijector.forward(params, x[None], batched)[0])[0]

            jacobian = jax.vmap(jax.jacrev(one))(x, cond).reshape(BATCH, x[0].size, x[0].size)
            z_fresh = bijector.forward(fresh, x, cond)[0]
            z_init = jax.tree.map(first, z_init)
            return (
                (z_init, z_fresh),
                z,
                log_det,
                back,
                log_det_inverse,
                bijector.forward(params, back, cond)[0],
                jacobian,
            )

        (z_init, z_fresh), z, log_det, back, log_det_inverse, again, jacobian = everything(x, cond)
        x = first(x)
        assert log_det.shape == log_det_inverse.shape == (BATCH,)
        check_close(back, x, 1e-8)  # x -> z -> x
        check_close(again, z, 1e-8)  # z -> x -> z
        check_close(log_det, np.linalg.slogdet(np.asarray(jacobian))[1], 1e-9)
        check_close(log_det + log_det_inverse, np.zeros(BATCH), 1e-9)
        check_close(z_init, z_fresh, 1e-9)  # init returns the transformed batch


@pytest.mark.parametrize("name", TABLE)
def test_properties_in_float32(name):
    bijector, x, cond = example(name, jnp.float32)
    params = perturbed(jax.jit(lambda x: bijector.init(jax.random.key(1), x, cond)[0])(x), 2)
    x, cond = first(x), first(cond)
    weights, constants = partition(params)

    @jax.jit
    def everything(weights, x):
        def loss(weights):
            z, log_det = bijector.forward(combine(weights, constants), x, cond)
            return (0.5 * (flat(z) ** 2).sum(1) - log_det).sum(), (z, log_det)

        (_, (z, log_det)), grads = jax.value_and_grad(loss, has_aux=True)(weights)
        return z, log_det, grads, bijector.inverse(combine(weights, constants), z, cond)[0]

    z, log_det, grads, back = everything(weights, x)
    assert log_det.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(z)} == {jnp.dtype("float32")}
    check_close(back, x, 3e-5)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(np.asarray(leaf)).all()
        assert np.asarray(leaf).any(), "a parameter without a gradient"
    if name not in UNIT_INTERVAL:
        for scale in (1e-6, 5.0):  # extreme inputs: finite, and back again
            z, log_det, grads, back = everything(weights, scale * x)
            assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((z, log_det, grads)))
            np.testing.assert_allclose(np.asarray(back), scale * np.asarray(x), atol=1e-2 * max(scale, 1e-2))


@pytest.mark.parametrize("name", ["actnorm", "conv1x1", "squeeze", "chain", "factor_out", "histogram_gaussianization"])
def test_jit_changes_nothing(name):
    bijector, x, cond = example(name, jnp.float32)
    params = perturbed(bijector.init(jax.random.key(1), x, cond)[0], 2)
    check_close(bijector.forward(params, x, cond), jax.jit(bijector.forward)(params, x, cond), 1e-5)


def test_histogram_gaussianization_holds_its_tails():
    bijector = bj.histogram_gaussianization(4, smoothing=1e-3)
    x = jnp.array([[-0.5], [-0.4999999], [0.4999999], [-0.1]], jnp.float32)
    params, _ = bijector.init(jax.random.key(0), jnp.tile(jnp.float32(-0.4), (64, 1)))
    z, log_det = bijector.forward(params, x)
    assert np.isfinite(np.asarray(log_det)).all()
    back, _ = bijector.inverse(params, z)
    check_close(back, x, 1e-5)
    assert np.isfinite(np.asarray(bijector.inverse(params, jnp.array([[-40.0], [40.0]], jnp.float32))[0])).all()


def test_actnorm_normalizes_the_first_batch_in_every_layer_of_a_scan():
    x = 5.0 + 3.0 * jax.random.normal(jax.random.key(0), (64, 4, 4, 2))
    layer = bj.chain(norm=bj.actnorm(), conv=bj.conv1x1())
    bijector = bj.repeat(layer, 3)
    params, _ = bijector.init(jax.random.key(1), x)
    for i in range(3):
        layer_params = jax.tree.map(lambda a, i=i: a[i], params)
        normalized, _ = bj.actnorm().forward(layer_params["norm"], x)
        check_close(normalized.mean((0, 1, 2)), np.zeros(2), 1e-4)
        check_close(normalized.std((0, 1, 2)), np.ones(2), 1e-4)
        x, _ = layer.forward(layer_params, x)


def test_conv1x1_starts_as_a_rotation_and_keeps_its_constants():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 6))
    params, z = bj.conv1x1().init(jax.random.key(1), x)
    check_close((z**2).sum(-1), (x**2).sum(-1), 1e-5)
    weights, constants = partition(params)
    assert set(jax.tree.leaves(jax.tree.map(lambda a: a.dtype.name, constants))) == {"int32"}
    assert weights["permutation"] is None


def masked_step():
    """A coupling of every kind of part: masked split, learned scale, spline, permutation, dropout's key."""
    learned = bj.learned_tanh(resnet(4, 1, zero_last=False))
    board = bj.coupling(bj.affine(lambda log_scale: log_scale), learned, bj.checkerboard(masked=True))
    spline = bj.coupling(bj.rational_quadratic_spline(4, 3.0), glow_conv(2), bj.halves(swap=True))
    noisy = bj.coupling(AFFINE, gated_attention(4, 1, 1, dropout=0.5), bj.checkerboard())
    return bj.chain(board=board, mirror=bj.flip(axis=2), mix=bj.permutation(), spline=spline, noisy=noisy)


STEPS = {"glow": (glow_step, False), "masked, spline, dropout": (masked_step, True)}


def memory_gradients(step, depth=2):
    """Gradients of one loss of a stack by its weights, x and cond: {memory mode: their tree}."""
    build, stochastic = STEPS[step]
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    cond = jax.random.normal(jax.random.key(1), (2, 3))
    stacks = {memory: bj.repeat(build(), depth, memory) for memory in bj.MEMORY}
    params = jax.jit(lambda *a: stacks["store"].init(*a)[0])(jax.random.key(2), x, cond)
    weights, constants = partition(perturbed(params, 3))

    def loss(weights, x, cond, bijector):
        key = jax.random.key(4) if stochastic else None
        z, log_det = bijector.forward(combine(weights, constants), x, cond, key)
        return (jnp.sin(z).sum((1, 2, 3)) - 0.7 * log_det).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
    return {memory: gradient(weights, x, cond, stack) for memory, stack in stacks.items()}


@pytest.mark.parametrize("step", STEPS)
def test_memory_modes_give_the_gradients_of_store(step):
    with jax.enable_x64(True):
        found = memory_gradients(step)
    assert set(found) == {"store", "remat", "invert"}
    for memory in ("remat", "invert"):
        check_close(found[memory], found["store"], 1e-8)


def temporary_bytes(memory, depth):
    """Temporary memory of the compiled gradient beyond the gradients themselves."""
    step = bj.chain(conv=bj.conv1x1(), coupling=bj.coupling(AFFINE, glow_conv(2)))
    bijector = bj.repeat(step, depth, memory)
    x = jax.ShapeDtypeStruct((8, 16, 16, 4), jnp.float32)
    params = jax.eval_shape(lambda key, x: bijector.init(key, x)[0], jax.random.key(0), x)
    weights, constants = partition(params)

    def loss(weights, constants, x):
        z, log_det = bijector.forward(combine(weights, constants), x)
        return (z**2).sum() - log_det.sum()

    analysis = jax.jit(jax.grad(loss)).lower(weights, constants, x).compile().memory_analysis()
    own = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(weights))
    return analysis.temp_size_in_bytes - own


def test_invert_needs_no_more_memory_for_more_layers():
    layer_input = 8 * 16 * 16 * 4 * 4  # bytes
    growth = {memory: (temporary_bytes(memory, 12) - temporary_bytes(memory, 4)) / 8 for memory in bj.MEMORY}
    assert growth["store"] > 3 * layer_input
    assert 0.9 * layer_input < growth["remat"] < growth["store"] / 2
    assert growth["invert"] < 0.1 * layer_input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bj.repeat(bj.identity(), 2, "sometimes"), "memory='sometimes'"),
        (lambda: bj.squeeze().init(jax.random.key(0), jnp.zeros((1, 3, 4, 1))), "3x4 is not divisible by 2"),
    ],
)
def test_bad_arguments_say_what_is_wrong(build, message):
    with pytest.raises(ValueError, match=message):
        build()
