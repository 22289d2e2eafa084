"""Networks: `conv2d` is lax's convolution in value and in every derivative; shapes, zero starts, the marked border."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import networks
from genflow.networks import conv
from genflow.networks.conv import ActNormConv, Conv, biased_conv2d, conv2d

NHWC = ("NHWC", "HWIO", "NHWC")
# (kernel height, width, input channels, output channels) -> how d kernel is computed
SHAPES = {
    (1, 1, 3, 4): "product",
    (3, 3, 2, 18): "product",  # patches of x
    (3, 3, 18, 2): "product",  # patches of the output's gradient; the convolution is one product too
    (3, 3, 4, 5): "convolution",
    (5, 5, 1, 25): "product",
    (5, 5, 25, 1): "product",
    (5, 5, 2, 3): "convolution",
    (1, 3, 2, 3): "convolution",
    (3, 1, 1, 4): "product",
}

FORMS = [(1, 1, 3, 4), (3, 3, 1, 9), (3, 3, 9, 1), (3, 3, 2, 3)]


def native(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def draw(*shapes, dtype=jnp.float64):
    return [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]


def operands(shape, dtype=jnp.float64, image=(4, 6)):
    """x, kernel and a gradient of the output."""
    kh, kw, features_in, features_out = shape
    return draw((2, *image, features_in), (kh, kw, features_in, features_out), (2, *image, features_out), dtype=dtype)


def check_close(a, b, tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=tolerance, atol=tolerance)


def with_gradients(function):
    """(x, kernel, g) -> the output and both gradients of <g, output>."""

    def values(x, kernel, g):
        y, vjp = jax.vjp(function, x, kernel)
        return y, vjp(g)

    return values


@jax.jit
def both(x, kernel, g):
    """Ours and the native one, as one program."""
    return with_gradients(conv2d)(x, kernel, g), with_gradients(native)(x, kernel, g)


@pytest.mark.parametrize("shape", SHAPES)
def test_conv2d_is_the_native_convolution(shape):
    with jax.enable_x64(True):
        check_close(*both(*operands(shape)), 1e-11)


PADDED = [
    ((2, 3, 4, 5), ((1, 0), (1, 1))),
    ((2, 2, 3, 30), ((1, 0), (1, 0))),
    ((2, 2, 30, 3), ((1, 0), (0, 1))),
    ((1, 2, 3, 4), ((0, 0), (1, 0))),
    ((3, 3, 2, 3), ((0, 0), (2, 0))),
]


@pytest.mark.parametrize(("shape", "padding"), PADDED)
def test_conv2d_with_padding_is_the_native_convolution(shape, padding):
    def padded(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NHWC)

    with jax.enable_x64(True):
        x, kernel, _ = operands(shape)
        (g,) = draw(padded(x, kernel).shape)
        ours = jax.jit(with_gradients(lambda x, kernel: conv2d(x, kernel, padding)))(x, kernel, g)
        check_close(ours, with_gradients(padded)(x, kernel, g), 1e-11)


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (3, 3, 18, 2), (3, 3, 4, 5)])
def test_conv2d_in_float32(shape):
    ours, theirs = both(*operands(shape, jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype("float32")}
    check_close(ours, theirs, 1e-4)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[:2] != (1, 1)])
def test_shapes_above_reach_every_form_of_the_kernel_gradient(shape):
    x, kernel, g = operands(shape, jnp.float32)
    same = tuple((side // 2, side // 2) for side in shape[:2])
    program = str(jax.make_jaxpr(lambda x, g: conv._kernel_gradient(x, g, kernel.shape, same))(x, g))
    assert ("conv_general_dilated" in program) == (SHAPES[shape] == "convolution")


@pytest.mark.parametrize("shape", FORMS)
def test_second_order_reverse_mode(shape):
    def second(function):
        def norm_of_gradient(x, kernel, g):
            grads = jax.grad(lambda x, kernel: (jnp.sin(function(x, kernel)) * g).sum(), (0, 1))(x, kernel)
            return sum((a**2).sum() for a in grads)

        return jax.grad(norm_of_gradient, (0, 1, 2))

    with jax.enable_x64(True):
        program = jax.jit(lambda *arguments: (second(conv2d)(*arguments), second(native)(*arguments)))
        check_close(*program(*operands(shape, image=(3, 3))), 1e-10)


@pytest.mark.parametrize("shape", FORMS)
def test_vmap(shape):
    def mapped(function, axes, arguments):
        stacked = [a if axis is None else jnp.stack([a, a**2]) for a, axis in zip(arguments, axes, strict=True)]
        return jax.vmap(with_gradients(function), axes)(*stacked)

    def over_all_axes(function, *arguments):
        return [mapped(function, axes, arguments) for axes in ((0, 0, 0), (0, None, None), (None, 0, 0))]

    with jax.enable_x64(True):
        program = jax.jit(lambda *arguments: [over_all_axes(f, *arguments) for f in (conv2d, native)])
        check_close(*program(*operands(shape)), 1e-11)


@pytest.mark.parametrize("shape", [(3, 3, 1, 9), (3, 3, 9, 1), (3, 3, 4, 5)])
def test_convolutions_in_a_scan_have_the_form_that_is_fast_on_cpu(shape):
    x, kernel, g = operands(shape, jnp.float32)

    def loop(x, kernel, g):
        def body(operands, _):
            y, gradients = with_gradients(conv2d)(*operands)
            return (*gradients, y), None

        return jax.lax.scan(body, (x, kernel, g), length=3)[0]

    program = jax.jit(loop).lower(x, kernel, g).compile().as_text()
    assert set(re.findall(r"dim_labels=(\S+?)[,\s]", program)) <= {"b01f_01io->b01f"}


def test_conv2d_works_outside_jit():
    x, kernel, g = operands((3, 3, 9, 1), jnp.float32)
    y, vjp = jax.vjp(conv2d, x, kernel)
    check_close((y, vjp(g)), both(x, kernel, g)[1], 1e-4)


def compare(ours, theirs, *arguments):
    """Values and all gradients of two functions of the same arguments, in one program."""

    @jax.jit
    def values(g, *arguments):
        (y, vjp), (expected, expected_vjp) = jax.vjp(ours, *arguments), jax.vjp(theirs, *arguments)
        return (y, vjp(g)), (expected, expected_vjp(g))

    (g,) = draw(jax.eval_shape(ours, *arguments).shape)
    check_close(*values(g, *arguments), 1e-12)


@pytest.mark.parametrize("image", [(1, 1), (2, 3), (4, 5)])
@pytest.mark.parametrize("kernel_size", [(1, 1), (5, 3)])
def test_marked_border_is_one_more_channel(image, kernel_size):
    border = np.ones((2, *image, 1))
    border[:, 1:-1, 1:-1] = 0.0

    def appended(x, kernel, bias):
        return native(jnp.concatenate([x, border], axis=-1), kernel) + bias

    def marked(x, kernel, bias):
        return biased_conv2d(x, kernel, bias, mark_border=True)

    with jax.enable_x64(True):
        compare(marked, appended, *draw((2, *image, 3), (*kernel_size, 4, 2), (2,)))


def test_gradients_of_a_marked_border_are_the_same_on_other_platforms(monkeypatch):
    def gradients(x, kernel, bias):
        return jax.vjp(lambda *a: biased_conv2d(*a, mark_border=True), x, kernel, bias)[1](g)

    with jax.enable_x64(True):
        x, kernel, bias, g = draw((2, 4, 5, 3), (3, 3, 4, 2), (2,), (2, 4, 5, 2))
        ours = jax.jit(gradients)(x, kernel, bias)
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays))
        check_close(jax.jit(lambda *a: gradients(*a))(x, kernel, bias), ours, 1e-12)


def test_scale_folded_into_the_weights_scales_the_output():
    module = Conv(2, mark_border=True)

    def params(kernel, bias):
        return {"params": {"kernel": kernel, "bias": bias}}

    def folded(x, kernel, bias, scale, shift):
        return module.apply(params(kernel, bias), x, scale, shift)

    def unfolded(x, kernel, bias, scale, shift):
        return scale * module.apply(params(kernel, bias), x) + shift

    with jax.enable_x64(True):
        compare(folded, unfolded, *draw((2, 4, 4, 3), (3, 3, 4, 2), (2,), (2,), (2,)))


def test_actnorm_conv_normalizes_the_first_batch():
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (16, 6, 6, 3))
    y, _ = jax.jit(ActNormConv(5, mark_border=True).init_with_output)(jax.random.key(1), x)
    check_close(y.mean((0, 1, 2)), np.zeros(5), 1e-4)
    check_close(y.std((0, 1, 2)), np.ones(5), 1e-4)


# name -> (builder of networks by number of features, input shape, cond shape or None, output shape, zero at the start)
NETWORKS = {
    "glow_conv": (networks.glow_conv(8), (3, 4, 6, 2), (3, 5), (3, 4, 6, 7), True),
    "glow_conv, no cond": (networks.glow_conv(8), (3, 4, 6, 2), None, (3, 4, 6, 7), True),
    "mlp": (networks.mlp((8, 8)), (3, 4, 2), (3, 5), (3, 7), False),
    "mlp, zero": (networks.mlp((8,), zero_last=True), (3, 2), None, (3, 7), True),
    "mlp, linear": (networks.mlp(()), (3, 2), None, (3, 7), False),
    "resnet": (networks.resnet(16, 2), (3, 4, 6, 2), (3, 5), (3, 4, 6, 7), True),
    "resnet, no cond": (networks.resnet(3, 1), (3, 4, 6, 2), None, (3, 4, 6, 7), True),
    "zero_conv": (networks.zero_conv(), (3, 4, 6, 2), None, (3, 4, 6, 7), True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_shape_start_and_dependence(name):
    build, shape, cond_shape, expected, zero = NETWORKS[name]
    network = build(7)
    inputs = draw(shape, *([cond_shape] if cond_shape else []), dtype=jnp.float32)

    @jax.jit
    def outputs(*inputs):
        params = network.init(jax.random.key(1), *inputs)
        moved = jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size, dtype=a.dtype).reshape(a.shape)), params)
        changed = [network.apply(moved, *(a + (i == j) for j, a in enumerate(inputs))) for i in range(len(inputs))]
        return network.apply(params, *inputs), network.apply(moved, *inputs), changed

    start, moved, changed = outputs(*inputs)
    assert start.shape == moved.shape == expected
    assert start.dtype == jnp.float32
    assert np.asarray(start).any() != zero
    for other in changed:  # every input, cond too, has an effect on every example
        assert (np.abs(np.asarray(other - moved)).reshape(3, -1).max(1) > 1e-5).all()
