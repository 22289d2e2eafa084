"""Networks in bfloat16 and TensorFloat32: what is rounded, and that all the rest is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import MATCHING, POINTS, TABLE

from genflow import networks as nets
from genflow.benchmark import precision as measuring
from genflow.core import Network
from genflow.errors import UserError
from genflow.models import FLOAT32, build
from genflow.networks import precision as policy
from genflow.networks.energy import energy_resnet
from genflow.networks.nvae import autoregressive_shift, convolution, decoder_cell, down_cell, encoder_cell, up_cell
from genflow.networks.precision import network_precision
from genflow.networks.refinenet import refinenet
from genflow.networks.rewrite import rewritten
from genflow.networks.time_mlp import time_mlp
from genflow.networks.unet import unet
from genflow.networks.vdm import level_net
from genflow.networks.wide_resnet import wide_resnet

B = 2
VECTOR, MAP, SITES = (B, 6), (B, 4, 4, 4), (B, 16, 1)
TIMED = (jnp.full(B, 0.5), jnp.ones((B, 3)))
COND = jnp.ones((B, 3))
FLOAT = jnp.dtype(jnp.float32)
relu = jax.nn.relu

# name -> (what builds a network, shape of x, cond, products that stay float32: of exact inputs, times, energies).
NETWORKS = {
    "mlp": (lambda: nets.mlp((5,))(3), VECTOR, COND, 0),
    "residual_mlp": (lambda: nets.residual_mlp(5, 1)(3), VECTOR, None, 0),
    "glorot_mlp": (lambda: nets.glorot_mlp(3, (5,), relu, 2, True), VECTOR, None, 0),
    "hidden_layers": (lambda: nets.hidden_layers((5,), relu, True), VECTOR, None, 0),
    "heads": (lambda: nets.heads(3, 2), VECTOR, None, 0),
    "glow_conv": (lambda: nets.glow_conv(5)(3), MAP, COND, 0),
    "zero_conv": (lambda: nets.zero_conv()(3), MAP, None, 0),
    "resnet": (lambda: nets.resnet(4, 1)(3), MAP, COND, 0),
    "gated_attention": (lambda: nets.gated_attention(4, 1, 2)(3), MAP, COND, 4),
    "checkerboard_context": (lambda: nets.checkerboard_context(4, 1), MAP, None, 0),
    "energy_resnet": (lambda: energy_resnet(4, (1,), 1), MAP, COND, 3),
    "wide_resnet": (lambda: wide_resnet(10, 1, "group")(3), MAP, None, 3),
    "made": (lambda: nets.made((8,))(2), VECTOR, COND, 0),
    "residual_made": (lambda: nets.residual_made(8, 1)(2), VECTOR, None, 0),
    "masked_perceptron": (lambda: nets.masked_perceptron((20,), 4)(4), SITES, COND, 0),
    "markov_mlp": (lambda: nets.markov_mlp(2, (5,), 4)(4), SITES, None, 0),
    "gpt": (lambda: nets.gpt((16,), 4, 4, 1, 2, positions="rotary")(4), SITES, COND, 2),
    "pixelcnn": (lambda: nets.pixelcnn(4, 1, 4, 4, 1, 4)(4), SITES, COND, 0),
    "gated_pixelcnn": (lambda: nets.gated_pixelcnn(4, 1, 4, 4, 1, 4)(4), SITES, COND, 0),
    "pixelcnnpp": (lambda: nets.pixelcnnpp(4, 1, 1, 4, 4)(4), SITES, COND, 0),
    "pixelrnn": (lambda: nets.pixelrnn((4, 4, 1), 4, "row", 4, 1)(4), SITES, COND, 0),
    "pixelrnn, diagonal": (lambda: nets.pixelrnn((4, 4, 1), 4, "diagonal", 4, 1)(4), SITES, None, 0),
    "wavenet": (lambda: nets.wavenet((1, 2), 4, 4, 4)(4), SITES, COND, 0),
    "transformer": (lambda: nets.transformer(4, 1, 2)(3), (B, 4, 3), COND, 2),
    "hvae_stage": (lambda: nets.hvae_stage((4, 4), 4, 3, 2, 1, "relu", False), MAP, None, 0),
    "hvae_head": (lambda: nets.hvae_head(4, 3, "relu"), MAP, None, 0),
    "bottom_up": (lambda: nets.bottom_up(4, 1), MAP, None, 0),
    "elu_conv": (lambda: nets.elu_conv(4), MAP, None, 0),
    "masked_convs": (lambda: nets.masked_convs(4), MAP, jnp.ones(MAP), 0),
    "bottleneck": (lambda: nets.bottleneck(4, 3, 4), MAP, None, 0),
    "nvae convolution": (lambda: convolution(3), MAP, None, 0),
    "encoder_cell": (lambda: encoder_cell(4), MAP, None, 0),
    "decoder_cell": (lambda: decoder_cell(4), MAP, None, 1),  # the gradient of a depthwise kernel is a float32 sum
    "up_cell": (lambda: up_cell(2), MAP, None, 1),
    "down_cell": (lambda: down_cell(8), MAP, None, 0),
    "autoregressive_shift": (lambda: autoregressive_shift(4), MAP, None, 1),
    "time_mlp": (lambda: time_mlp(4, 1)(3), VECTOR, TIMED, 4),
    "unet": (lambda: unet(4, (1, 2), 1, (2,), 2, 0.0)(3), MAP, TIMED, 20),
    "level_net": (lambda: level_net(4, 1)(3), MAP, TIMED, 14),
    "refinenet": (lambda: refinenet(3, 4, (1, 2), (1, 1), 1)(3), MAP, (TIMED[0], None), 131),
}
STATEFUL = {
    "gan_generator": (lambda: nets.gan_generator((4,), (5,)), VECTOR, None),
    "gan_discriminator": (lambda: nets.gan_discriminator((5,)), VECTOR, None),
    "dcgan_generator": (lambda: nets.dcgan_generator((4, 4, 1), 4, 1), VECTOR, None),
    "dcgan_discriminator": (lambda: nets.dcgan_discriminator(4, 2), MAP, None),
    "resnet_generator": (lambda: nets.resnet_generator((4, 4, 1), 4, 1), VECTOR, COND),
    "resnet_discriminator": (lambda: nets.resnet_discriminator(4, 1, 1), MAP, COND),
}
PRODUCTS = ("dot_general", "conv_general_dilated")
SENSITIVE = ("reduce_sum", "cumsum", "exp", "exp2", "log", "rsqrt", "sqrt", "sin", "cos", "scatter-add", "scatter_add")
# a factor below one in the derivative of gelu; how many share a maximum
HARMLESS = {"bottleneck": {"exp"}, "gan_discriminator": {"reduce_sum"}}
# and from JAX 0.12 on in that of elu, which was expm1(x) + 1 before
ELU = "autoregressive_shift bottom_up checkerboard_context gated_attention masked_convs pixelcnnpp refinenet".split()
if " exp " in str(jax.make_jaxpr(jax.grad(jax.nn.elu))(1.0)):
    HARMLESS |= {name: {"exp"} for name in ELU}


def built(name, precision):
    with network_precision(precision):
        network = (NETWORKS | STATEFUL)[name][0]()
    if name in NETWORKS:
        return network
    apply = lambda variables, x, cond: network.apply(*variables, x, cond, None, True)[0]  # noqa: E731
    return network._replace(apply=apply)


def example(name):
    _, shape, cond, *_ = (NETWORKS | STATEFUL)[name]
    return jnp.zeros(shape, int) if shape == SITES else jnp.ones(shape), cond


def traced(name, precision):
    """(equations of the network and of its gradient, types of outputs, types of gradients)."""
    network, (x, cond) = built(name, precision), example(name)
    params = jax.eval_shape(network.init, jax.random.key(0), x, cond)
    assert {a.dtype for a in jax.tree.leaves(params) if jnp.issubdtype(a.dtype, jnp.floating)} == {FLOAT}

    def loss(params):
        return sum(y.sum() for y in jax.tree.leaves(network.apply(params, x, cond)))

    out = jax.eval_shape(network.apply, params, x, cond)
    jaxpr, grads = jax.make_jaxpr(jax.grad(loss, allow_int=True), return_shape=True)(params)
    return list(equations(jaxpr.jaxpr)), {a.dtype for a in jax.tree.leaves(out)}, jax.tree.leaves(grads)


def equations(jaxpr, inside=False):
    """(whether it is inside a network in bfloat16, equation) of a program and of the programs in it."""
    for equation in jaxpr.eqns:
        here = inside or "bfloat16" in str(equation.source_info.name_stack)
        yield here, equation
        if equation.primitive.name.startswith("custom_"):
            continue
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, here)


def narrow(atom):
    return getattr(atom.aval, "dtype", None) == jnp.bfloat16


@pytest.mark.parametrize("name", [*NETWORKS, *STATEFUL])
def test_products_are_bfloat16_and_sums_parameters_and_outputs_are_float32(name):
    found, out, grads = traced(name, "bfloat16")
    assert out == {FLOAT}
    assert all(g.dtype != jnp.bfloat16 for g in grads)
    products = [[narrow(a) for a in e.invars] for _, e in found if e.primitive.name in PRODUCTS]
    wide = sum(not all(p) for p in products)
    expected = NETWORKS[name][3] if name in NETWORKS else 3 * (name == "resnet_discriminator")
    assert any(all(p) for p in products)
    assert wide == expected, (wide, len(products))
    sums = {e.primitive.name for _, e in found if e.primitive.name in SENSITIVE and any(map(narrow, e.invars))}
    assert sums <= HARMLESS.get(name, set())


@pytest.mark.parametrize("name", [*NETWORKS, *STATEFUL])
def test_tensorfloat32_is_of_every_product_and_of_its_derivatives(name):
    with jax.default_matmul_precision("float32"):
        found, out, _ = traced(name, "tensorfloat32")
    precisions = {e.params["precision"] for _, e in found if e.primitive.name in PRODUCTS}
    assert precisions == {(jax.lax.Precision.HIGH,) * 2}
    assert out == {FLOAT}


@pytest.mark.parametrize("name", ["glow", "maf", "vdvae", "nvae, flows", "iaf_vae", "gpt", "jem", "ddpm"])
def test_models_are_bfloat16_in_networks_alone(name):
    section, spec = TABLE[name]
    with network_precision("bfloat16"):
        model = build(section, spec)
    batch = {"x": jnp.ones((B, *spec.shape)), "label": jnp.zeros(B, int)}
    key = jax.random.key(0)
    params, state = jax.eval_shape(model.init, key, batch)
    assert all(a.dtype != jnp.bfloat16 for a in jax.tree.leaves((params, state)))
    function = model.log_prob or model.losses["model"]
    found = list(equations(jax.make_jaxpr(function)(params, state, key, batch).jaxpr))
    outside = [e for here, e in found if not here and any(map(narrow, e.outvars))]
    assert not outside, outside[0]
    assert any(here and any(map(narrow, e.outvars)) for here, e in found)


def test_float32_is_the_function_as_it_was_written():
    def builder():
        return nets.mlp((5,))(3)

    apply = policy.as_built(builder)().apply
    assert apply.__module__ == "genflow.networks.pure"


def test_sums_over_many_rows_do_not_stop_growing_in_gradients():
    # in bfloat16 a sum of ones ends at 256
    x = jnp.ones((4096, 3))
    grads = {}
    for precision in ("float32", "bfloat16"):
        with network_precision(precision):
            network = nets.mlp((4,))(2)
        params = network.init(jax.random.key(0), x)
        grads[precision] = jax.jit(jax.grad(lambda p, network=network: network.apply(p, x).sum()))(params)
    for wide, rounded in zip(*map(jax.tree.leaves, grads.values()), strict=True):
        np.testing.assert_allclose(rounded, wide, rtol=0.02, atol=0.01 * np.abs(wide).max())


def scanned(precision):
    """d loss / d bias of a network that adds its bias in each step of a scan."""

    def apply(params, x, cond=None, key=None):
        return jax.lax.scan(lambda h, _: (h * 0 + x + params["bias"], h.sum()), x, None, 2048)[1]

    with network_precision(precision):
        network = policy.precise(lambda: Network(lambda key, x, cond=None: {"bias": jnp.zeros(1)}, apply))()
    return jax.jit(jax.grad(lambda p: network.apply(p, jnp.ones((1, 1))).sum()))({"bias": jnp.zeros(1)})["bias"]


def test_gradients_of_what_a_scan_uses_in_each_step_do_not_stop_growing():
    if jax.__version_info__ >= (0, 12):
        pytest.skip("the constants of a scan of JAX 0.12 are not told apart")
    assert scanned("float32") == 2047
    np.testing.assert_allclose(scanned("bfloat16"), 2047, rtol=0.01)


def test_gradients_of_kernels_are_rounded_after_devices_have_added_them():
    x, kernel = jnp.ones((2, 4, 4, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 5), jnp.bfloat16)
    factors = jnp.ones((4, 3), jnp.bfloat16), jnp.ones((3, 5), jnp.bfloat16)

    def product(x, kernel):
        return rewritten(lambda x, kernel: x @ kernel, policy._with_wide_sums)(x, kernel)

    for function, *given in ((nets.conv2d, x, kernel), (product, *factors)):
        jaxpr = jax.make_jaxpr(jax.grad(lambda k, f=function, x=given[0]: f(x, k).astype(jnp.float32).sum()))(given[1])
        assert "reduce_precision" in str(jaxpr)
        assert "preferred_element_type=float32" in str(jaxpr)


def test_the_gradient_of_a_gradient_is_there():
    def norm(kernel, x):
        network = rewritten(lambda x, kernel: jnp.tanh(nets.conv2d(x, kernel)) @ kernel[0, 0], policy._with_wide_sums)
        grads = jax.grad(lambda *given: network(*given).astype(jnp.float32).sum(), (0, 1))(x, kernel)
        return sum((g.astype(jnp.float32) ** 2).sum() for g in grads)

    x, kernel = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 4, 4, 3), (3, 3, 3, 3)]))
    exact = jax.grad(norm)(kernel, x)
    rounded = jax.grad(norm)(kernel.astype(jnp.bfloat16), x.astype(jnp.bfloat16))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.05 * np.abs(exact).max())


def log_probs(section, spec, precision, scale=0.2):
    with network_precision(precision):
        model = build(section, spec)
    x = jax.random.randint(jax.random.key(1), (4, *spec.shape), 0, spec.bins or 9).astype(jnp.float32)
    params, state = model.init(jax.random.key(0), {"x": x})
    params = jax.tree.map(lambda a: a + scale * jax.random.normal(jax.random.key(a.size), a.shape, a.dtype), params)
    return jax.jit(model.log_prob)(params, state, jax.random.key(2), {"x": x})


@pytest.mark.parametrize("name", ["coupling_flow", "vae", "markov"])
def test_likelihoods_in_bfloat16_are_close_and_not_equal(name):
    section, spec = TABLE[name]
    section = section | {"memory": "store"} if "memory" in section else section
    exact, rounded = (log_probs(section, spec, precision) for precision in ("float32", "bfloat16"))
    assert rounded.dtype == jnp.float32
    error = np.abs(rounded - exact) / np.maximum(np.abs(exact), 1)
    assert 0 < error.max() < 0.05


def test_gradients_through_an_inverse_are_those_of_what_was_stored():
    batch = {"x": jax.random.normal(jax.random.key(1), (32, 2))}

    def gradient(memory):
        with network_precision("bfloat16"):
            model = build({"name": "coupling_flow", "depth": 4, "widths": (16,), "memory": memory}, POINTS)
        params, state = model.init(jax.random.key(0), batch)
        params = jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), params)
        return jax.jit(jax.grad(lambda p: model.losses["model"](p, state, jax.random.key(2), batch)[0]))(params)

    for stored, inverted in zip(*(jax.tree.leaves(gradient(m)) for m in ("store", "invert")), strict=True):
        assert inverted.dtype == jnp.float32
        np.testing.assert_allclose(inverted, stored, atol=0.03 * np.abs(stored).max() + 1e-3)


@pytest.mark.parametrize("name", ["gpt", "pixelrnn", "masked_perceptron", "wavenet"])
def test_steps_say_what_apply_says_to_some_digits(name):
    network, (_, cond) = built(name, "bfloat16"), example(name)
    x = jax.random.randint(jax.random.key(0), SITES, 0, 4)
    params = network.init(jax.random.key(1), x, cond)
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape), params)

    @jax.jit
    def stepped(params):
        def one(cache, i):
            raw, cache = network.step(params, cache, x, i, cond)
            return cache, raw

        return jax.lax.scan(one, network.start(params, B, cond), jnp.arange(SITES[1]))[1].swapaxes(0, 1)

    whole, sites = jax.jit(network.apply)(params, x, cond), stepped(params)
    assert whole.dtype == sites.dtype == jnp.float32
    np.testing.assert_allclose(sites, whole, atol=0.03 * np.abs(whole).max())


def test_sampling_a_masked_flow_keeps_x_in_float32():
    with network_precision("bfloat16"):
        network = nets.made((8,))(1)
    z = jax.random.normal(jax.random.key(0), (4, 5))
    params = network.init(jax.random.key(1), z)
    x, _ = jax.jit(lambda p: network.generate(p, lambda d, raw, state: (raw[:, 0] + z[:, d], state), (), z))(params)
    np.testing.assert_array_equal(x, z)  # the last layer starts at zero: nothing is rounded


def test_equations_in_time_are_solved_with_float32_networks():
    with network_precision("bfloat16"):
        model = build(MATCHING, POINTS)
    batch, key = {"x": jnp.ones((B, 2))}, jax.random.key(0)
    params, state = jax.eval_shape(model.init, key, batch)
    of = {name: str(jax.make_jaxpr(f)(params, state, key, batch)) for name, f in (
        ("log_prob", model.log_prob), ("encode", model.encode), ("loss", model.losses["model"])
    )}  # fmt: skip
    assert {name: "bf16" in text for name, text in of.items()} == {"log_prob": False, "encode": False, "loss": True}


@pytest.mark.parametrize("name", sorted(FLOAT32))
def test_models_that_need_float32_say_so(name):
    section, spec = next((s, spec) for s, spec in TABLE.values() if s["name"] == name)
    with network_precision("bfloat16"), pytest.raises(UserError, match=f"network_precision=bfloat16: {name} needs"):
        build(section, spec)


def test_precisions_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="expected one of float32"), network_precision("float16"):
        pass
    assert policy.current_precision() == "float32"


def test_rewriting_reaches_loops_branches_checkpoints_and_derivatives():
    def function(x, flag):
        def body(c, _):
            return jax.checkpoint(jnp.sin)(c) * x, None

        y = jax.lax.scan(body, x, None, 2)[0]
        return jax.nn.relu(jax.lax.cond(flag, jnp.sin, jnp.cos, y))

    def sines_are_doubled(name, params, do, operands):
        return [2 * a if name == "sin" else a for a in do(operands)]

    x = jnp.float32(0.3)
    double = rewritten(function, sines_are_doubled)
    expected = 2 * jnp.sin(2 * jnp.sin(2 * jnp.sin(x) * x) * x)
    np.testing.assert_allclose(double(x, True), expected, rtol=1e-6)
    step = (double(x + 1e-2, True) - double(x - 1e-2, True)) / 2e-2
    np.testing.assert_allclose(jax.grad(double)(x, True), step, rtol=1e-2)


def test_emulated_tensorfloat32_rounds_the_operands_of_networks_alone():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))

    def function(x):
        inside = policy._in_tensorfloat32("apply", nets.conv2d)(x, kernel)
        return inside, nets.conv2d(x, kernel)

    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 2))
    with jax.default_matmul_precision("float32"):
        inside, outside = measuring.emulate_tensorfloat32(function)(x)
        rounded = nets.conv2d(*(jax.lax.reduce_precision(a, 8, 10) for a in (x, kernel)))
        np.testing.assert_array_equal(inside, rounded)
        np.testing.assert_array_equal(outside, nets.conv2d(x, kernel))
    assert np.abs(inside - outside).max() > 1e-4


def test_pairs_of_scores_have_the_error_of_their_difference():
    reference = np.array([1.0, 5.0, 9.0])
    line = measuring.paired(reference + np.array([0.1, 0.2, 0.3]), reference)
    np.testing.assert_allclose([line["difference"], line["largest"]], [0.2, 0.3])
    np.testing.assert_allclose(line["standard_error"], 0.1 / np.sqrt(3))
    assert measuring.paired(reference * np.nan, reference)["difference"] is None


def test_the_page_holds_a_row_of_every_run_and_precision():
    rows = [{"precision": p, "round_trip": None} | measuring.paired(np.ones(2), np.ones(2)) for p in policy.PRECISIONS]
    run = {"name": "some_run", "trained_in": "bfloat16", "unit": "nats", "rows": rows}
    text = measuring.page("a\n<!-- precision -->\nold\n<!-- /precision -->\nb", {"r": {"emulated": [], "runs": [run]}})
    assert text.count("some_run, trained in bfloat16") == 3
    assert "old" not in text
    assert text.endswith("\nb")
    with pytest.raises(UserError, match="once"):
        measuring.page("nothing", {})
