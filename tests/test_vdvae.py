"""Very deep VAEs, and ResNet VAEs with inverse autoregressive flow: what the tables of tests do not say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed
from test_models import BINARY, IAF_VAE, IMAGES, POINTS, VDVAE, made

from genflow.dequantize import center
from genflow.distributions import normal_log_prob
from genflow.errors import UserError
from genflow.models import build
from genflow.models.iaf_vae import Plan, flow_level
from genflow.models.latent import Gaussian
from genflow.networks import masked_convs
from genflow.networks.iaf_vae import DataNormConv

ONE_SIDE = {"vdvae": VDVAE | {"blocks": ((4, 2),), "encoder_blocks": ((4, 2),)}, "iaf_vae": IAF_VAE | {"blocks": (2,)}}


@pytest.mark.parametrize("name", ONE_SIDE)
def test_recomputing_blocks_changes_nothing(name):
    batch = {"x": jax.random.randint(jax.random.key(0), (2, *BINARY.shape), 0, 2)}
    models = [build(ONE_SIDE[name] | {"memory": memory}, BINARY) for memory in ("store", "remat")]
    params, state = jax.jit(models[0].init)(jax.random.key(1), batch)
    params = perturbed(params, 3, 0.1)

    @jax.jit
    def gradients(params):
        losses = [lambda params, m=m: m.losses["model"](params, state, jax.random.key(2), batch)[0] for m in models]
        return [jax.value_and_grad(loss)(params) for loss in losses]

    for a, b in zip(*map(jax.tree.leaves, gradients(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def conv(params, x):
    """XLA's own."""
    padded = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return padded + params["bias"]


def bottleneck(params, x):
    for name in ("reduce", "first", "second", "expand"):
        x = conv(params[name], jax.nn.gelu(x, approximate=False))
    return x


def unstacked(params):
    return [jax.tree.map(lambda a, i=i: a[i], params) for i in range(len(jax.tree.leaves(params)[0]))]


def unrolled(params, x, z):
    """Block after block of the row VDVAE: (logits, log-priors, log-posteriors) of given latents."""
    h, features, terms = conv(params["encoder"]["input"], x), {}, []
    for block in unstacked(params["encoder"]["4"]):
        features[4], h = h, h + bottleneck(block, h)
    h = h.mean((1, 2), keepdims=True)
    for block in unstacked(params["encoder"]["1"]):
        h = h + bottleneck(block, h)
    features[1] = h
    h = jnp.zeros_like(h)
    for side, of_side in zip((1, 4), z, strict=True):
        h = jnp.tile(h, (1, side, side, 1)) + params["decoder"][str(side)]["start"]
        for i, block in enumerate(unstacked(params["decoder"][str(side)]["blocks"])):
            mean, log_std, more = jnp.split(bottleneck(block["prior"], h), (1, 2), -1)
            both = bottleneck(block["posterior"], jnp.concatenate((h, features[side]), -1))
            pairs = (mean, log_std), jnp.split(both, 2, -1)
            terms.append([normal_log_prob(of_side[:, i], m, 7 * jnp.tanh(s / 7)).sum((1, 2, 3)) for m, s in pairs])
            h = h + more + conv(block["latent"], of_side[:, i])
            h = h + bottleneck(block["residual"], h)
    output = params["output"]
    return conv(output, output["scale"] * h + output["shift"]), *(jnp.stack(a) for a in zip(*terms, strict=True))


def test_the_scans_are_the_blocks_one_after_the_other():
    model, spec, params, state, batch = made("vdvae")
    params = jax.tree.map(lambda a: 2 * a, params)

    @jax.jit
    def both(params):
        drawn = model.latent.infer(params, state, jax.random.key(4), batch)
        return drawn, unrolled(params["model"]["levels"], center(batch["x"], spec), drawn.z)

    drawn, (logits, log_prior, log_posterior) = both(params)
    np.testing.assert_allclose(drawn.log_prior, log_prior, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drawn.log_posterior, log_posterior, rtol=1e-4, atol=1e-5)
    assert np.abs(log_prior - log_posterior).max() > 1e-3
    sign = 2.0 * batch["x"] - 1
    np.testing.assert_allclose(drawn.log_likelihood, jax.nn.log_sigmoid(sign * logits).sum((1, 2, 3)), rtol=1e-4)


def test_every_level_has_its_own_temperature():
    model, _, params, state, _ = made("vdvae")
    draw = jax.jit(lambda t: model.latent.generate(params, state, jax.random.key(0), 3, t))
    (first,), (second, third) = (np.moveaxis(np.asarray(a), 1, 0) for a in draw(jnp.array([0.0, 1.0, 0.0])))
    for z, is_cold in ((first, True), (second, False), (third, False)):  # the third's mode follows what is above it
        assert (np.ptp(z, 0) < 1e-6).all() == is_cold
    calm = np.asarray(draw(jnp.array([0.0, 0.0, 0.0]))[1])
    assert (np.ptp(calm, 0) < 1e-6).all()


def flow(width=5, channels=2):
    """(parameters of a flow on images of 2x3 pixels, mean, log-std, context)."""
    keys = jax.random.split(jax.random.key(0), 4)
    mean, log_std = (jax.random.normal(k, (1, 2, 3, channels)) for k in keys[:2])
    context = jax.random.normal(keys[2], (1, 2, 3, width))
    params = masked_convs(width).init(keys[3], jnp.zeros_like(mean) + mean, context)
    return perturbed(params, 5, 0.3), mean, log_std, context


def test_a_masked_convolution_sees_the_values_before_each():
    params, mean, _, context = flow()
    apply = masked_convs(5).apply
    of_z, of_context = jax.jit(jax.jacrev(apply, argnums=(1, 2)))(params, mean, context)
    jacobian = np.asarray(of_z).reshape(6, 4, 12)  # [pixel, shifts and log-scales, values]
    for outputs in (jacobian[:, :2], jacobian[:, 2:]):
        square = outputs.reshape(12, 12)
        assert not np.triu(square).any()
        seen = np.diag(square, -1) != 0  # the value just before in raster order, but at the end of the row above
        assert seen.tolist() == 5 * [True] + [False] + 5 * [True]
    assert np.asarray(of_context).any((0, 1, 2, 3, 4, 7)).all()


def test_the_density_of_the_flow_is_that_of_its_base_by_the_jacobian():
    params, mean, log_std, context = flow()
    plan, prior, key = (
        Plan((4, 6, 1, 1), (1,), 5, 2, "store"),
        Gaussian(jnp.zeros_like(mean), log_std),
        jax.random.key(7),
    )

    @jax.jit
    def drawn(y):  # at temperature 0 the base is at its mean
        level = flow_level(plan, params, key, prior, (y, log_std, context), True, 0.0)
        return level.z, level

    jacobian, level = jax.jacrev(drawn, has_aux=True)(mean)
    _, log_det = np.linalg.slogdet(np.asarray(jacobian, np.float64).reshape(12, 12))
    base = Gaussian(mean, 7 * jnp.tanh(log_std / 7))
    np.testing.assert_allclose(level.log_posterior, base.log_prob(mean) - log_det, rtol=1e-4)
    np.testing.assert_allclose(level.kl, level.log_posterior - prior.log_prob(level.z), rtol=1e-5)
    other = flow_level(plan, params, key, prior, (mean, log_std, context), False, 1.0)
    np.testing.assert_allclose(other.z, prior.draw(key), rtol=1e-6)
    assert abs(log_det) > 0.1


def test_a_convolution_starts_as_the_first_batch_wants_it():
    x = 3 + 5 * jax.random.normal(jax.random.key(0), (16, 4, 4, 3))
    y, variables = jax.jit(DataNormConv(6).init_with_output)(jax.random.key(1), x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 0.1, rtol=1e-3)
    assert set(variables["params"]) == {"kernel", "log_gain", "bias"}


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        (VDVAE | {"memory": "invert"}, IMAGES, "memory='invert': expected one of store, remat"),
        (VDVAE, POINTS, r"models square images; points has events of shape \(2,\)"),
        (VDVAE | {"width": 0}, IMAGES, "must be above zero"),
        (VDVAE | {"blocks": ((1, 1), (2, 1))}, IMAGES, "multiples of those before, up to 4 pixels"),
        (VDVAE | {"blocks": ((3, 1), (4, 1))}, IMAGES, "multiples of those before, up to 4 pixels"),
        (VDVAE | {"encoder_blocks": ((4, 1),)}, IMAGES, r"must have the sides \[4, 1\] of blocks"),
        (IAF_VAE | {"blocks": (1, 1, 1)}, IMAGES, "halve images 3 times, .* set data.image_size"),
        (IAF_VAE | {"blocks": ()}, IMAGES, "must be above zero"),
        (IAF_VAE | {"memory": "invert"}, IMAGES, "memory='invert': expected one of store, remat"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(section, spec, message):
    with pytest.raises(UserError, match=message):
        build(section, spec)
