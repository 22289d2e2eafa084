"""The convolutional hierarchical VAE: its sizes, its skip connections, where q looks, the schedule of free nats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import BINARY, IMAGES, POINTS, TABLE, made

from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.models.hvae import Sizes
from genflow.models.latent import Hierarchy, Objective, Walk, latent_variable
from genflow.models.observation import observation
from genflow.networks import hvae_stage, to_channels, to_pixels


def test_the_latents_on_28_pixels_have_the_shapes_of_the_paper():
    model = build({"name": "hvae"}, Spec("binary", (28, 28, 1), 2))
    params = jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((2, 28, 28, 1), jnp.uint8)})[0]
    z = jax.eval_shape(lambda params: model.latent.generate(params, {}, jax.random.key(0), 5), params)
    assert [leaf.shape for leaf in z] == [(5, 8), (5, 16), (5, 14, 14, 8)]
    kernels = [a.shape for path, a in jax.tree_util.tree_leaves_with_path(params) if "kernel" in str(path[-1])]
    assert (5, 5, 64, 64) in kernels
    assert (3, 3, 4 * 64, 64) in kernels  # stride 2
    assert (3, 3, 64, 4 * 64) in kernels  # its transpose
    skips = {
        way: [i for i, stage in sorted(stages.items()) if "Normed_1" in stage["Lift_0"]]
        for group in params["model"]["levels"].values()
        for way, stages in group.items()
        if way in ("up", "down")
    }
    assert skips == {"up": ["1", "2"], "down": ["0", "1"]}


def test_a_patch_makes_every_map_smaller():
    sizes = Sizes(Spec("binary", (28, 28, 1), 2), 64, (3, 3), (1, 2), (8, 16), 1, 1, 2)
    assert sizes.maps() == [(14, 14), (14, 14), (7, 7)]


def test_channels_and_pixels_undo_each_other_and_keep_neighbours_together():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    blocks = to_channels(x, 2)
    np.testing.assert_array_equal(to_pixels(blocks, 2), x)
    np.testing.assert_array_equal(blocks[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))


def test_a_stage_makes_the_map_smaller_on_the_way_up_and_larger_on_the_way_down():
    x = jnp.zeros((1, 4, 4, 2))
    for is_up, shape in ((False, (1, 2, 2, 3)), (True, (1, 8, 8, 3))):
        stage = hvae_stage((4, 4), 3, 3, 2, 2, "relu", is_up)
        assert jax.eval_shape(lambda stage=stage: stage.apply(stage.init(jax.random.key(1), x), x)).shape == shape


@pytest.mark.parametrize(("name", "shared"), [("hvae", False), ("hvae, bidirectional", True)])
def test_only_bidirectional_inference_uses_the_generative_stages(name, shared):
    model, _, params, state, batch = made(name)
    levels = params["model"]["levels"]

    @jax.jit
    def infer(scale):
        scaled = levels | {"generation": jax.tree.map(lambda a: scale * a, levels["generation"])}
        other = {"model": params["model"] | {"levels": scaled}}
        return model.latent.infer(other, state, jax.random.key(3), batch).z

    z, changed = infer(1.0), infer(1.5)
    assert (np.abs(np.asarray(z[-1] - changed[-1])) > 1e-6).any() == shared
    np.testing.assert_array_equal(z[0], changed[0])  # the uppermost has nothing above it


@pytest.mark.parametrize("kl", [3.0, -3.0])
def test_free_nats_are_constant_then_fall_to_none(kl):
    def infer(params, key, e, from_posterior, temperature):
        terms = jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.full((1, 4), kl)
        return Walk(jnp.zeros((4, 1)), jnp.zeros((4, 4, 4, 1, 1)), *terms)

    hierarchy = Hierarchy(1, lambda key, x: {}, lambda params, x: (), infer, lambda params, z: (), lambda params: ())
    objective = Objective(free_nats=50.0, free_nats_until=16)
    model = latent_variable(BINARY, hierarchy, observation(BINARY), objective)
    params, batch = {"model": {"levels": {}, "observation": {}}}, {"x": jnp.zeros((4, 4, 4, 1))}

    def loss(examples):
        return model.losses["model"](params, {"examples": jnp.int32(examples)}, jax.random.key(0), batch)

    reconstruction = 16 * np.log(2)
    values = [float(loss(n)[0]) - reconstruction for n in (0, 16, 24, 32)]
    np.testing.assert_allclose(values, (50, 50, 25, kl), rtol=1e-5)
    assert [int(loss(n)[1][0]["examples"]) for n in (0, 31, 32)] == [4, 32, 32]


@pytest.mark.parametrize(
    ("change", "spec", "message"),
    [
        ({"inference": "sideways"}, BINARY, "expected one of bottom_up, bidirectional"),
        ({}, POINTS, "hvae models images"),
        ({"strides": (2,)}, BINARY, "one value for each stage"),
        ({"kernels": (2, 3)}, IMAGES, "kernels odd"),
        ({"num_dense": 3}, BINARY, "0 .. 2"),
        ({"strides": (2, 4)}, BINARY, "divide the sides by 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, spec, message):
    with pytest.raises(UserError, match=message):
        build(TABLE["hvae"][0] | change, spec)
