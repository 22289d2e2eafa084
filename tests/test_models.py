"""One table for every model family: loss, gradients, sampling, likelihood, latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow.core import Spec, combine, partition
from genflow.distributions import standard_normal_sample
from genflow.errors import UserError
from genflow.evaluate import normalized
from genflow.models import MODELS, build

IMAGES = Spec("images", (4, 4, 1), 8)
BINARY = Spec("binary", (4, 4, 1), 2)
TEXT = Spec("text", (16,), 8, symbols=tuple("abcdefgh"))
POINTS = Spec("points", (2,), None)
LABELLED = Spec("labelled", (4, 4, 2), 8, num_classes=3)
LABELLED_POINTS = Spec("labelled points", (2,), None, num_classes=2)
REGRESSION = Spec("regression", (2,), None, num_classes=2, cond_dims=3)
SOUND = Spec("sound", (12,), 8, num_classes=2, cond_dims=3, sample_rate=8)
FLOWPP = {"name": "flowpp", "width": 4, "blocks": 1, "components": 2, "heads": 1, "noise_width": 4, "noise_blocks": 1}
REALNVP = {"name": "realnvp", "width": 4, "blocks": 1}
JET = {"name": "jet", "patch": 2, "width": 4, "couplings": 6, "layers": 1, "heads": 1, "memory": "invert"}
TARFLOW = {"name": "tarflow", "patch": 2, "width": 4, "blocks": 2, "layers": 1, "heads": 2, "gaussianize": True}
NSF = {"name": "nsf", "depth": 2, "width": 8, "blocks": 1, "bins": 4}
MAF = {"name": "maf", "depth": 2, "widths": (8,)}
WAVENET = {"name": "wavenet", "width": 4, "skip_width": 4, "cycles": 1, "dilations": (1, 2)}
BOLTZMANN = {"name": "boltzmann", "target": "double_well", "depth": 1, "widths": (8,)}
DCGAN = {"name": "dcgan", "width": 3, "levels": 1}
GAN = {"name": "gan", "noise_dims": 3, "widths": (8,), "discriminator_widths": (8,), "dropout": 0.0}
GAN |= {"generator_init": 0.0, "discriminator_init": 0.0}
RESNET_GAN = {"name": "resnet_gan", "width": 4, "discriminator_width": 4, "noise_dims": 3, "levels": 1}
RESNET_GAN |= {"downsamplings": 1, "blocks": 1}
IGEBM = {"name": "igebm", "width": 4, "multipliers": (1,), "blocks": 1, "steps": 3, "buffer": 16}
JEM = {"name": "jem", "depth": 10, "width": 1, "steps": 3, "buffer": 16}
GLOW = {"name": "glow", "levels": 2, "depth": 1, "width": 4}
RESIDUAL = {"name": "residual_flow", "levels": 1, "depth": 1, "width": 3, "dense_width": 3}

LOOSE = {"rtol": 1e-4, "atol": 1e-4}
NCSN = {"name": "ncsn", "levels": 3, "sampler_steps": 3, "sigma_min": 0.1, "width": 4, "blocks": 1}
NCSN |= {"multipliers": (1, 2), "dilations": (1, 1), "prediction": "noise"}
MATCHING = {"name": "flow_matching", "width": 8, "blocks": 1, "sampler_steps": 3}
UNET = {"width": 4, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "dropout": 0.0, "sampler_steps": 3}
DDPM = {"name": "ddpm", "num_steps": 4, "schedule": "cosine", "prediction": "v"}
SCORE = {"name": "score_sde", "width": 8, "blocks": 1, "sampler_steps": 3, "rtol": 1e-4, "atol": 1e-4}
GPT = {"name": "gpt", "width": 4, "layers": 1, "heads": 2}
PIXELCNNPP = {"name": "pixelcnnpp", "width": 4, "blocks": 1, "components": 2, "dropout": 0.0}

RBM = {"name": "rbm", "hidden": 6, "sample_steps": 3, "ais_chains": 2, "ais_steps": 5}
HVAE = {"name": "hvae", "width": 4, "kernels": (3, 3), "latents": (1, 2), "num_dense": 1, "blocks": 1}
IWAE = {"name": "iwae", "latents": (3, 2), "widths": ((8,), (4,)), "samples": 1}
LADDER = {"name": "ladder", "latents": (3, 2), "widths": ((8,), (4,))}
VAE = {"name": "vae", "latent_dims": 3, "widths": (8,)}
NVAE = {"name": "nvae", "width": 2, "groups": (1, 2), "channels": 2, "cells": 1, "blocks": 1, "block_cells": 1}
VDM = {"name": "vdm", "blocks": 1, "sampler_steps": 3, "rtol": 1e-4, "atol": 1e-4}
VDVAE = {"name": "vdvae", "blocks": ((1, 1), (4, 2)), "encoder_blocks": ((4, 2), (1, 1)), "width": 4}
VDVAE |= {"bottleneck_width": 3, "latent_channels": 1}
IAF_VAE = {"name": "iaf_vae", "blocks": (2,), "width": 4, "latent_channels": 1}
FLOWS = {"posterior_depth": 2, "prior_depth": 2, "context_dims": 4, "flow_widths": (8,)}
CAUSAL = {"likelihood": "autoregressive", "context_dims": 4, "causal_width": 4, "causal_blocks": 1, "components": 2}

GIVEN = {"conditional": True}

# name -> (section of the configuration, spec). A new model adds a row.
TABLE = {
    "boltzmann": (BOLTZMANN, POINTS),
    "boltzmann, spline": (BOLTZMANN | {"coupling": "spline", "forward_weight": 0.0}, POINTS),
    "classifier": ({"name": "classifier", "depth": 10, "width": 1, "norm": "group"}, LABELLED),
    "coupling_flow": ({"name": "coupling_flow", "depth": 2, "widths": (8,), "memory": "invert"}, POINTS),
    "coupling_flow, conditional": ({"name": "coupling_flow", "depth": 1, "widths": (8,)} | GIVEN, LABELLED_POINTS),
    "dcgan": (DCGAN, LABELLED),
    "ddpm": (DDPM | {"width": 8, "blocks": 1, "sampler_steps": 3, "variance": "small"}, POINTS),
    "ddpm, images, learned variance, steps by importance": (
        DDPM | UNET | LOOSE | {"objective": "hybrid", "variance": "learned", "importance_times": True} | GIVEN,
        LABELLED,
    ),
    "edm": ({"name": "edm", "width": 8, "blocks": 1, "sampler_steps": 3, "rtol": 1e-4, "atol": 1e-4}, POINTS),
    "ffjord": ({"name": "ffjord", "levels": 1, "depth": 1, "widths": (3,)} | GIVEN, LABELLED),
    "ffjord_mlp": ({"name": "ffjord_mlp", "widths": (8,)} | GIVEN, LABELLED_POINTS),
    "flow_matching": (MATCHING | {"latent_noise": 1.0, "coupling": "optimal_transport"}, POINTS),
    "flow_matching, images": (
        MATCHING | UNET | {"path": "trigonometric", "heads": 1, "multipliers": (1,), "attention": (4,)} | LOOSE | GIVEN,
        LABELLED,
    ),
    "flowpp": (FLOWPP | {"dropout": 0.0, "memory": "store"} | GIVEN, LABELLED),
    "gan": (GAN | {"pieces": 2, "dequantize": True}, IMAGES),
    "gan, minimax, vectors": (GAN | {"loss": "minimax", "pieces": 1, "prior": "normal"} | GIVEN, LABELLED_POINTS),
    "glow": (GLOW, IMAGES),
    "glow, additive, gaussianized": (
        GLOW | {"coupling": "additive", "gaussianize": True, "memory": "remat"} | GIVEN,
        LABELLED,
    ),
    "gpt": (GPT, TEXT),
    "gpt, rotary": (GPT | {"positions": "rotary", "tied": False, "dropout": 0.0} | GIVEN, SOUND),
    "hvae": (HVAE | {"strides": (2, 1)}, BINARY),
    "hvae, bidirectional": (
        HVAE | {"strides": (1, 2), "patch": 2, "inference": "bidirectional", "free_nats": 1e-3, "free_nats_until": 40},
        IMAGES,
    ),
    "igebm": (IGEBM | {"spectral_normalization": False, "sample_from_buffer": True}, IMAGES),
    "igebm, conditional": (IGEBM | {"blocks": 2, "sample_steps": 2} | GIVEN, LABELLED),
    "image_gpt": (GPT | {"name": "image_gpt", "tied": True, "memory": "remat"} | GIVEN, LABELLED),
    "iwae": (IWAE, BINARY),
    "iwae, doubly reparameterized": (
        IWAE | {"samples": 3, "gradient": "doubly_reparameterized", "latents": (3,), "widths": ((8,),)},
        IMAGES,
    ),
    "jem": (JEM, LABELLED),
    "jet": (JET | GIVEN, LABELLED),
    "ladder": (LADDER | {"kl_warmup": 80, "beta": 0.5}, BINARY),
    "linear_gaussian": ({"name": "linear_gaussian", "latent_dims": 1}, POINTS),
    "made": ({"name": "made", "widths": (20,)}, BINARY),
    "made, ensemble": ({"name": "made", "widths": (9, 7), "num_masks": 3, "shuffle": True} | GIVEN, LABELLED),
    "maf": (MAF, POINTS),
    "maf, images": (MAF | {"activation": "tanh"} | GIVEN, LABELLED),
    "markov": ({"name": "markov", "order": 3, "widths": (8,)}, BINARY),
    "markov, conditional": ({"name": "markov", "order": 5, "widths": (8,)} | GIVEN, LABELLED),
    "ncsn": (NCSN, IMAGES),
    "nice": ({"name": "nice", "depth": 2, "widths": (8,)} | GIVEN, LABELLED),
    "nsf": (NSF | GIVEN, REGRESSION),
    "nsf, autoregressive": (NSF | {"autoregressive": True, "memory": "remat"} | GIVEN, LABELLED_POINTS),
    "pixelrnn": ({"name": "pixelrnn", "layer": "row", "width": 4, "layers": 1}, BINARY),
    "pixelrnn, diagonal": ({"name": "pixelrnn", "layer": "diagonal", "width": 4, "layers": 2} | GIVEN, LABELLED),
    "gated_pixelcnn": ({"name": "gated_pixelcnn", "width": 4, "blocks": 1, "head": 4} | GIVEN, LABELLED),
    "pixelcnn": ({"name": "pixelcnn", "width": 4, "blocks": 1, "head": 8} | GIVEN, LABELLED),
    "pixelcnnpp": (PIXELCNNPP | {"stages": 2} | GIVEN, LABELLED),
    "rbm": (RBM, BINARY),
    "rbm, Gaussian, annealed": (RBM | {"hidden": 21, "visible": "gaussian", "persistent": False}, IMAGES),
    "realnvp": (REALNVP | {"memory": "remat"} | GIVEN, LABELLED),
    "residual_flow": (RESIDUAL | GIVEN, LABELLED),
    "residual_mlp_flow": ({"name": "residual_mlp_flow", "depth": 2, "widths": (8,)} | GIVEN, LABELLED_POINTS),
    "resnet_gan, projection": (RESNET_GAN | GIVEN, LABELLED),
    "resnet_gan, gradient penalty": (
        RESNET_GAN
        | {"loss": "wasserstein", "gradient_penalty": 10.0, "spectral_normalization": False}
        | {"pooling": "mean", "batch_norm": False, "prior": "uniform", "generator_batch": 1},
        IMAGES,
    ),
    "score_sde": (SCORE | {"sde": "ve", "weighting": "likelihood"} | GIVEN, LABELLED_POINTS),
    "tarflow": (TARFLOW | GIVEN, LABELLED),
    "wavenet": (WAVENET, SOUND),
    "wavenet, mixture": (WAVENET | {"kernel": 3, "components": 2} | GIVEN, SOUND),
    "nvae": (NVAE | {"kl_warmup": 80}, BINARY),
    "nvae, flows": (NVAE | {"groups": (3,), "flows": 1, "memory": "remat", "spectral": 0.0}, LABELLED),
    "vae": (VAE, BINARY),
    "vae, logistic": (VAE | {"beta": 0.5, "free_nats": 0.1, "kl_warmup": 80}, IMAGES),
    "vae, Gaussian": (VAE | {"likelihood": "gaussian"}, IMAGES),
    "vae, continuous": (VAE | {"std": 2.0}, POINTS),
    "vae, mixture": (VAE | {"likelihood": "mixture"}, LABELLED),
    "vae, planar posterior, mixture prior": (
        VAE | {"posterior": "planar", "prior": "mixture", "components": 2} | FLOWS,
        BINARY,
    ),
    "vae, iaf posterior, autoregressive prior": (
        VAE | {"posterior": "iaf", "prior": "autoregressive"} | FLOWS,
        BINARY,
    ),
    "vae, coupling posterior, coupling prior": (VAE | {"posterior": "coupling", "prior": "coupling"} | FLOWS, BINARY),
    "vae, vamp prior, autoregressive decoder": (VAE | {"prior": "vamp"} | CAUSAL, BINARY),
    "iaf_vae": (IAF_VAE, IMAGES),
    "vdm": (VDM | {"width": 8, "schedule": "monotone", "rtol": 1e-5, "atol": 1e-5}, POINTS),
    "vdm, images": (VDM | {"width": 4, "gamma_min": -6.0, "dropout": 0.0} | GIVEN, LABELLED),
    "vdvae": (VDVAE, BINARY),
    "vae, doubly reparameterized": (VAE | {"samples": 3, "gradient": "doubly_reparameterized"}, BINARY),
}


@functools.cache
def model_of(name):
    return build(*TABLE[name])


@functools.cache
def made(name, num=8):
    """(model, spec, perturbed params, state, batch) of a row."""
    model, (_, spec) = model_of(name), TABLE[name]
    key = jax.random.key(0)
    if spec.bins is None:
        x = jax.random.normal(key, (num, *spec.shape))
    else:
        x = jax.random.randint(key, (num, *spec.shape), 0, spec.bins).astype(jnp.uint8)
    batch = {"x": x} | ({"label": jnp.arange(num) % spec.num_classes} if spec.num_classes else {})
    batch |= {"cond": jax.random.normal(jax.random.key(5), (num, spec.cond_dims))} if spec.cond_dims else {}
    params, state = jax.jit(model.init)(jax.random.key(1), batch)
    params = perturbed(params, 2, 0.03)
    return model, spec, params, normalized(model, params, state, jax.random.key(3)), batch


def test_every_family_has_a_row():
    assert {section["name"] for section, _ in TABLE.values()} == set(MODELS)


@functools.cache
def evaluated(name):
    """What the properties of a row need, compiled once: losses, gradients, log_prob, a round trip, other conditions."""
    model, spec, params, state, batch = made(name)

    @jax.jit
    def trained(params, key):
        losses = {}
        for group, loss in model.losses.items():
            weights, constants = partition(params[group])

            def objective(weights, loss=loss, group=group, constants=constants):
                return loss(params | {group: combine(weights, constants)}, state, key, batch)

            losses[group] = jax.value_and_grad(objective, has_aux=True)(weights)
        if not _encodes(model):
            return losses, None
        return losses, model.decode(params, state, model.encode(params, state, None, batch), batch)

    key = jax.random.key(3)
    losses, back = trained(params, key)
    if model.log_prob is None:
        return losses, None, back, None
    log_prob = jax.jit(model.log_prob)  # twice the same program, with other conditions
    given = {name: a + 1 if name == "cond" else (a + 1) % spec.num_classes for name, a in batch.items() if name != "x"}
    others = log_prob(params, state, key, batch | given) if given else None
    return losses, log_prob(params, state, key, batch), back, others


@pytest.mark.parametrize("name", TABLE)
def test_every_loss_is_finite_and_reaches_every_parameter_of_its_group(name):
    for (value, (_, metrics)), grads in evaluated(name)[0].values():
        assert value.shape == ()
        assert np.isfinite(value)
        assert metrics
        assert all(np.isfinite(metric) for metric in metrics.values())
        unreached = [path for path, g in jax.tree_util.tree_leaves_with_path(grads) if not np.asarray(g).any()]
        assert unreached == []


@pytest.mark.parametrize("name", [name for name in TABLE if model_of(name).sample is not None])
def test_samples_have_the_shape_and_range_of_the_data_and_follow_the_key(name):
    model, spec, params, state, _ = made(name)
    draw = jax.jit(lambda key, t: model.sample(params, state, key, 6, None, t))
    one, same, other = draw(jax.random.key(0), 1.0), draw(jax.random.key(0), 1.0), draw(jax.random.key(1), 1.0)
    assert one.shape == (6, *spec.shape)
    assert one.dtype == jnp.float32
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()
    if spec.bins:
        assert set(np.unique(one)) <= set(range(spec.bins))
    if not spec.cond_dims:
        cold = np.asarray(draw(jax.random.key(0), 0.0))
        classes = spec.num_classes or 1  # nobody asked for a class: each in turn
        np.testing.assert_allclose(cold, cold[np.arange(6) % classes], atol=1e-6)


SCORED = [name for name in TABLE if model_of(name).log_prob is not None]


def test_a_model_without_log_prob_says_so():
    without = [made(name)[0] for name in set(TABLE) - set(SCORED)]
    assert {model.bound for model in without} == {"none"}


@pytest.mark.parametrize("name", SCORED)
def test_log_prob_is_nats_per_example_and_agrees_with_the_loss(name):
    model = made(name)[0]
    losses, values, *_ = evaluated(name)
    (loss, (_, metrics)), _ = losses["model"]
    assert values.shape == (8,)
    # the loss of an 'estimate' draws anew what log_prob holds fixed, that of an ensemble takes one member
    loose = model.bound == "estimate" or "ensemble" in name
    several = TABLE[name][0].get("samples", 1) > 1  # draws in the loss of an importance weighted bound
    drawn = model.diffusion is not None and model.diffusion.num_terms  # steps of the bound otherwise than of the loss
    if "nll" in metrics and not several and not drawn:
        np.testing.assert_allclose(metrics["nll"], -np.asarray(values).mean(), rtol=0.05 if loose else 1e-5)
    if all(special is None for special in (model.target, model.latent, model.diffusion, model.energy_based)):
        np.testing.assert_allclose(loss, metrics["nll"], rtol=1e-5)
    assert model.bound in ("exact", "lower", "average", "estimate")


def _has_an_order(model):
    return model.complete is not None and model.diffusion is None


AUTOREGRESSIVE = [name for name in TABLE if _has_an_order(model_of(name))]


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_an_autoregressive_model_keeps_what_is_known_and_scores_every_site(name):
    model, spec, params, state, batch = made(name)
    shape = (*spec.shape[:2], *(1,) * (len(spec.shape) - 2))
    known = jax.random.bernoulli(jax.random.key(7), 0.5, shape)

    @jax.jit
    def both(params, key):
        cond = {k: a for k, a in batch.items() if k != "x"}
        x = model.complete(params, state, key, batch["x"], known, cond)
        if model.site_log_prob is None:
            return x, None, None
        return x, model.site_log_prob(params, state, None, batch), model.sites(batch["x"])

    x, terms, sites = both(params, jax.random.key(8))
    mask = np.broadcast_to(known, x.shape)
    np.testing.assert_array_equal(np.asarray(x)[mask], np.asarray(batch["x"], np.float32)[mask])
    assert (np.asarray(x)[~mask] != np.asarray(batch["x"])[~mask]).any()
    if terms is None:
        assert "ensemble" in name  # whose members have orders of their own
        return
    assert terms.shape == sites.shape[:2]
    assert sites.size == batch["x"].size
    np.testing.assert_allclose(terms.sum(1), evaluated(name)[1], rtol=1e-5)


def _encodes(model):
    return model.encode is not None and model.latent is None


@pytest.mark.parametrize("name", [name for name in TABLE if name not in AUTOREGRESSIVE and _encodes(model_of(name))])
def test_a_flow_decodes_what_it_encoded(name):
    model, spec, _, _, batch = made(name)
    tolerance = 0 if spec.bins else 0.02 if model.diffusion else 1e-5
    np.testing.assert_allclose(evaluated(name)[2], np.asarray(batch["x"], np.float32), atol=tolerance)


def test_every_level_has_its_own_temperature():
    model, _, params, state, _ = made("glow")
    draw = jax.jit(lambda t: model.sample(params, state, jax.random.key(0), 4, None, t))
    np.testing.assert_array_equal(draw((0.0, 0.0)), draw(0.0))
    np.testing.assert_array_equal(draw((1.0, 1.0)), draw(1.0))
    latents = jax.eval_shape(lambda x: model.encode(params, state, None, {"x": x}), jnp.zeros((4, *IMAGES.shape)))
    coarse, fine = standard_normal_sample(jax.random.key(1), latents, (0.0, 1.0))
    assert coarse.shape[1] < fine.shape[1]  # the coarsest level comes first
    assert not np.asarray(coarse).any()
    assert np.asarray(fine).any()
    with pytest.raises(ValueError, match="temperature has 3 values, the latent has 2 levels"):
        model.sample(params, state, jax.random.key(0), 4, None, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", [name for name in SCORED if "conditional" in TABLE[name][0]])
def test_the_condition_changes_the_density_of_every_example(name):
    _, values, _, others = evaluated(name)
    assert (np.abs(np.asarray(values - others)) > 1e-4).all()


def test_the_class_changes_the_samples():
    model, _, params, state, _ = made("nice")
    draw = jax.jit(lambda labels: model.sample(params, state, jax.random.key(0), 8, {"label": labels}))
    one, other = draw(jnp.zeros(8, jnp.int32)), draw(jnp.ones(8, jnp.int32))
    assert (np.asarray(one) != np.asarray(other)).any()


def test_conditions_where_there_are_none_are_refused():
    with pytest.raises(UserError, match="conditional=True, but images has neither labels nor condition vectors"):
        build(GLOW | GIVEN, IMAGES)


def test_a_two_dimensional_flow_integrates_to_one():
    model, _, params, state, _ = made("coupling_flow")
    axis = np.linspace(-12, 12, 400, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(np.asarray(jax.jit(model.log_prob)(params, state, None, {"x": grid}), np.float64))
    np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** 2, 1.0, rtol=1e-2)


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        ({"name": "glwo"}, IMAGES, "config.model.name='glwo': expected one of"),
        ({"name": "glow", "dept": 3}, IMAGES, "config.model.dept: glow has no such argument; it has levels, depth"),
        (VAE | {"likelihood": "bernoulli"}, IMAGES, "likelihood='bernoulli' does not fit images; take 'logistic'"),
        (VAE | {"likelihood": "cauchy"}, IMAGES, "likelihood='cauchy': expected one of auto, bernoulli"),
        (VAE | {"std": -1.0, "likelihood": "gaussian"}, IMAGES, "std=-1.0 must be above zero"),
        (VAE | {"samples": 2, "beta": 2.0}, IMAGES, "need beta=1, free_nats=0 and kl_warmup=0"),
        (VAE | {"gradient": "reinforce"}, IMAGES, "gradient='reinforce': expected one of"),
        ({"name": "vae", "latent_dims": 0}, IMAGES, "latent_dims=0"),
        *(
            (section | {"activation": "gelu"}, IMAGES, "activation='gelu': expected one of leaky_relu, relu, silu")
            for section in (VAE, IWAE, LADDER, HVAE | {"strides": (2, 1)}, MAF)
        ),
        (VAE | {"posterior": "radial"}, IMAGES, "posterior='radial': expected one of gaussian, planar"),
        (VAE | {"posterior": "iaf", "latent_dims": 1}, IMAGES, "latent_dims=1 above one; take 'planar'"),
        (VAE | {"posterior": "planar", "posterior_depth": 0}, IMAGES, "needs posterior_depth=0 .* above zero"),
        (VAE | {"prior": "cauchy"}, IMAGES, "prior='cauchy': expected one of normal, coupling"),
        (VAE | {"prior": "coupling", "latent_dims": 1}, IMAGES, "prior='coupling' needs latent_dims=1 above one"),
        (VAE | {"prior": "mixture", "components": 0}, IMAGES, "components=0 must be above zero"),
        (VAE | {"prior": "vamp", "posterior": "iaf"}, IMAGES, "needs the density of q at any z"),
        (VAE | {"prior": "vamp", "gradient": "doubly_reparameterized"}, IMAGES, "with parameters of its own"),
        (VAE | {"likelihood": "autoregressive"}, POINTS, "masked convolutions are for images"),
        ({"name": "coupling_flow"}, IMAGES, "models vectors"),
        ({"name": "coupling_flow", "depth": 0}, POINTS, "depth=0"),
        (GLOW, POINTS, "models discrete images"),
        (GLOW | {"levels": 3}, IMAGES, "levels=3 halves images of 4x4 too often"),
        (GLOW | {"width": 0}, IMAGES, "width=0 must be above zero"),
        (GLOW | {"memory": "none"}, IMAGES, "memory='none'"),
        (GLOW | {"coupling": "spline"}, IMAGES, "coupling='spline': expected one of affine, additive"),
        (MAF | {"widths": (0,)}, POINTS, "must be above zero"),
        (FLOWPP | {"dropout": 1.5}, IMAGES, "dropout=1.5"),
        (PIXELCNNPP | {"dropout": 1.0}, IMAGES, "dropout=1.0 must be at least 0 and below 1"),
        (PIXELCNNPP | {"stages": 4}, IMAGES, "4 or 4 is no multiple of 8; set stages lower"),
        (PIXELCNNPP, BINARY, "cannot be fitted to two values; take gated_pixelcnn"),
        (PIXELCNNPP, POINTS, "models images of integers; points has events"),
        (PIXELCNNPP | {"components": 0}, IMAGES, "components=0 must be above zero"),
        (
            BOLTZMANN,
            POINTS._replace(name="target:wave"),
            "target='double_well', but the data are target:wave; set both",
        ),
    ],
)
def test_a_section_that_does_not_fit_is_refused_by_name(section, spec, message):
    with pytest.raises(UserError, match=message):
        build(section, spec)
