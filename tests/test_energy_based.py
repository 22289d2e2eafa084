"""Langevin dynamics, chains, the contrastive loss, and the models made of them: IGEBM, JEM, the plain classifier."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import sharding
from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.models.energy_based import (
    CHAINS,
    Chains,
    Scale,
    centered_scale,
    contrastive,
    initial_chains,
    negatives,
    run,
    unit_scale,
)
from genflow.networks.energy import energy_resnet
from genflow.networks.wide_resnet import wide_resnet
from genflow.optimizers import make_optimizers
from genflow.samplers.langevin import langevin, langevin_step, temperature
from genflow.step import init_state, make_step

IMAGES = Spec("images", (4, 4, 1), 8)
LABELLED = Spec("labelled", (4, 4, 1), 8, num_classes=3)
POINTS = Spec("points", (2,), None)
IGEBM = {"name": "igebm", "width": 4, "multipliers": (1,), "blocks": 1, "steps": 3, "buffer": 16}
JEM = {"name": "jem", "depth": 10, "width": 1, "steps": 3, "buffer": 16}
LINE = Scale(lambda x, key=None: x, lambda y: y, (-1.0, 1.0))
STILL = Chains(steps=1, step_size=0.5, noise=0.0, max_gradient=0.0, clips=False, buffer=24, restarts=0.0)
DIRECTION = jnp.array([1.0, -2.0, 0.5])


def linear(y):
    return y @ DIRECTION


# Langevin dynamics


def test_step_and_noise_together_set_the_temperature():
    """Of the energy |z|^2 / 2 the chain's variance is known for any step: noise^2 / (1 - (1 - step)^2)."""
    step, noise, num = 0.02, 0.05, 20_000
    z = jax.jit(lambda key: langevin(lambda z: -z, key, jnp.ones((num, 2)), 400, step, noise))(jax.random.key(0))
    variance = np.asarray(z, np.float64).var()
    np.testing.assert_allclose(variance, noise**2 / (1 - (1 - step) ** 2), rtol=0.03)
    np.testing.assert_allclose(variance, temperature(step, noise), rtol=0.04)
    assert temperature(step, (2 * step) ** 0.5) == pytest.approx(1.0)


def test_gradients_and_images_are_clipped_each_to_its_own_limit():
    score, z = lambda z: 100.0 * jnp.sign(z), jnp.array([[-0.5, 0.2, 0.95]])
    free = langevin_step(score, jax.random.key(0), z, 0.1, 0.0)
    np.testing.assert_allclose(free, z + 10.0 * jnp.sign(z), rtol=1e-6)
    np.testing.assert_allclose(langevin_step(score, jax.random.key(0), z, 0.1, 0.0, 2.0), z + 0.2 * jnp.sign(z))
    kept = langevin(score, jax.random.key(0), z, 3, 0.1, 0.0, 2.0, (0.0, 1.0))
    np.testing.assert_allclose(kept, [[0.0, 0.8, 1.0]], rtol=1e-6)


def test_a_chain_goes_downhill_and_its_noise_follows_the_temperature():
    chains = STILL._replace(steps=4, noise=0.3)
    y = jnp.zeros((4_000, 3))
    ends = [run(chains, LINE, linear, jax.random.key(0), y, temperature=t) for t in (0.0, 1.0, 2.0)]
    np.testing.assert_allclose(ends[0], jnp.broadcast_to(-4 * 0.5 * DIRECTION, y.shape), rtol=1e-5)
    np.testing.assert_allclose((ends[1] - ends[0]).std(), 0.3 * 2, rtol=0.03)
    np.testing.assert_allclose(ends[2] - ends[0], 2 * (ends[1] - ends[0]), atol=1e-4)
    longer = run(chains, LINE, linear, jax.random.key(0), y, steps=6, temperature=0.0)
    np.testing.assert_allclose(longer, 1.5 * ends[0], rtol=1e-5)


# The buffer


def marked(rows, depth):
    """A buffer whose images say where they are: [row, slot, 0]."""
    row, slot = jnp.meshgrid(jnp.arange(rows), jnp.arange(depth), indexing="ij")
    return jnp.stack([row, slot, 0 * row], -1).astype(jnp.float32)


def test_a_chain_starts_in_its_own_row_and_ends_where_it_started():
    buffer = marked(8, 3)
    moved = -0.5 * np.asarray(DIRECTION)
    for seed in range(4):
        y, new = negatives(STILL, LINE, linear, jax.random.key(seed), buffer, 8)
        start = np.asarray(y) - moved
        np.testing.assert_array_equal(start[:, 0], np.arange(8))
        changed = (np.asarray(new) != np.asarray(buffer)).any(-1)
        np.testing.assert_array_equal(changed.sum(1), np.ones(8))
        np.testing.assert_array_equal(changed.argmax(1), start[:, 1])
        np.testing.assert_array_equal(np.asarray(new)[changed], y)


def test_every_slot_of_a_row_is_as_likely():
    keys = jax.random.split(jax.random.key(0), 500)
    y = jax.vmap(lambda key: negatives(STILL._replace(step_size=1e-9), LINE, linear, key, marked(8, 3), 8)[0])(keys)
    counts = np.bincount(np.rint(np.asarray(y)[..., 1]).astype(int).ravel())
    np.testing.assert_allclose(counts / 4_000, 1 / 3, atol=0.03)


def test_the_restarted_fraction_is_uniform_noise():
    buffer, chains = jnp.full((4_000, 2, 3), 5.0), STILL._replace(step_size=1e-9, restarts=0.2)
    y = np.asarray(negatives(chains, LINE, linear, jax.random.key(0), buffer, 4_000)[0])
    fresh = (y < 2).all(1)
    assert (fresh == (y < 2).any(1)).all()  # whole images
    np.testing.assert_allclose(fresh.mean(), 0.2, atol=0.02)
    np.testing.assert_allclose([y[fresh].min(), y[fresh].max()], [-1, 1], atol=0.01)
    np.testing.assert_allclose(y[fresh].var(), 1 / 3, rtol=0.1)


def test_persistent_chains_go_on_and_short_ones_start_anew():
    """Three steps of training with one image a row: the persistent chain has moved three times as far."""
    for restarts, moves in ((0.0, 3), (1.0, 1)):
        chains = STILL._replace(buffer=0, restarts=restarts)
        buffer = initial_chains(chains, LINE, jax.random.key(0), 64, (3,))
        assert buffer.shape == (64, 1, 3)
        for i in range(3):
            y, buffer = negatives(chains, LINE, linear, jax.random.key(i), buffer, 64)
        np.testing.assert_array_equal(buffer[:, 0], y)
        np.testing.assert_allclose(y.mean(0), -0.5 * moves * DIRECTION, atol=0.25)


def test_parts_of_a_batch_share_out_its_rows_in_order():
    y, new = negatives(STILL, LINE, linear, jax.random.key(0), marked(8, 3), 4)
    rows = np.rint(np.asarray(y)[:, 0] + 0.5)
    np.testing.assert_array_equal(rows // 2, np.arange(4))
    assert new.shape == (8, 3, 3)
    with pytest.raises(ValueError, match="a batch of 3 has no chains: they are for parts of a batch of 8"):
        negatives(STILL, LINE, linear, jax.random.key(0), marked(8, 3), 3)


@functools.cache
def trained(devices, section, accumulate):
    """Two steps on some of the fake devices: the state, and the program."""
    model, spec = build(dict(section), LABELLED), LABELLED
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]).reshape(devices, 1), sharding.AXES)
    rng = np.random.default_rng(0)
    batch = {"x": rng.integers(0, spec.bins, (16, *spec.shape)).astype(np.uint8), "label": np.arange(16) % 3}
    optimizers = make_optimizers(
        {"name": "sgd", "learning_rate": 0.1, "b1": 0.0, "b2": 0.0, "eps": 0.0, "schedule": "constant"}
        | {"warmup_steps": 0, "final_scale": 0.0, "initial_second_moment": 0.0, "milestones": (), "clip_norm": 0.0}
        | {"skip_norm": 0.0, "weight_decay": 0.0, "decay_pattern": "kernel", "every": 1, "groups": {}},
        ["model"],
        2,
    )

    def init():
        return init_state(model, optimizers, 0.0, jax.random.key(0), batch)

    placed = sharding.tree_shardings(mesh, jax.eval_shape(init))
    state = jax.jit(init, out_shardings=placed)()
    batch = jax.tree.map(lambda a: sharding.put(a, sharding.batch_sharding(mesh)), batch)
    step = jax.jit(make_step(model, optimizers, 0, accumulate=accumulate), out_shardings=(placed, None))
    step = step.lower(state, batch).compile()
    for _ in range(2):
        state, _ = step(state, batch)
        jax.block_until_ready(state)
    return state, step.as_text()


def test_chains_stay_on_their_device_and_are_those_of_one_device():
    section = tuple((IGEBM | {"buffer": 48}).items())
    (one, _), (many, program) = (trained(devices, section, 2) for devices in (1, 8))
    assert many.state[CHAINS].shape == (16, 3, *LABELLED.shape)
    assert many.state[CHAINS].sharding.spec == jax.sharding.PartitionSpec(sharding.AXES)
    assert "all-reduce" in program  # of the gradients
    for word in ("all-gather", "all-to-all", "collective-permute"):
        assert word not in program
    for a, b in zip(jax.tree.leaves((one.state, one.params)), jax.tree.leaves((many.state, many.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_only_chains_are_cut_and_only_where_they_divide():
    mesh = sharding.make_mesh(-1, 1)
    shapes = {name: jax.ShapeDtypeStruct((16, 2), jnp.float32) for name in ("chains", "chains_seen", "vectors")}
    shapes |= {"odd": {"chains": jax.ShapeDtypeStruct((9, 2), jnp.float32)}}
    placed = sharding.tree_shardings(mesh, shapes)
    assert placed["chains"].spec == jax.sharding.PartitionSpec(sharding.AXES)
    for other in (placed["chains_seen"], placed["vectors"], placed["odd"]["chains"]):
        assert other.spec == jax.sharding.PartitionSpec()


# The loss


def test_the_gradient_of_the_loss_is_the_contrastive_one():
    """Of E(x) = w x with squares: mean x+ - mean x- + 2 alpha (mean E+ x+ + mean E- x-)."""
    data, samples, alpha = *jax.random.normal(jax.random.key(0), (2, 6, 3)), 0.3
    gradient = jax.grad(lambda w: contrastive(data @ w, samples @ w, alpha, 10.0)[0])(DIRECTION)
    of_data, of_samples = data @ DIRECTION, samples @ DIRECTION
    squares = (of_data[:, None] * data).mean(0) + (of_samples[:, None] * samples).mean(0)
    np.testing.assert_allclose(gradient, data.mean(0) - samples.mean(0) + 2 * alpha * squares, rtol=1e-5)


@pytest.mark.parametrize(
    ("of_data", "of_samples", "diverged"),
    [(1.0, 2.0, 0), (-4.9, 0.0, 0), (0.0, -5.1, 1), (0.0, 5.1, 1), (np.nan, 0.0, 1), (np.inf, np.inf, 1)],
)
def test_divergence_is_said(of_data, of_samples, diverged):
    metrics = contrastive(jnp.array([of_data, of_data]), jnp.array([of_samples, of_samples]), 1.0, 5.0)[1]
    assert metrics["diverged"] == diverged
    assert metrics["diverged"].dtype == jnp.float32


# The scales


@pytest.mark.parametrize("make", [unit_scale, centered_scale])
def test_scales_go_there_and_back(make):
    scale, x = make(IMAGES, 0.1), jnp.arange(16.0).reshape(1, 4, 4, 1) % 8
    quiet = make(IMAGES, 0.0)
    y = quiet.forward(x)
    np.testing.assert_array_equal(scale.inverse(y), x)
    np.testing.assert_array_equal(scale.forward(x), y)
    assert scale.interval[0] <= y.min() < y.max() <= scale.interval[1]
    np.testing.assert_array_equal(quiet.inverse(quiet.forward(x, jax.random.key(0))), x)
    many = jnp.broadcast_to(x, (4_000, 4, 4, 1))
    added = scale.forward(many, jax.random.key(0)) - quiet.forward(many, jax.random.key(0))
    np.testing.assert_allclose(added.std(), 0.1, rtol=0.02)


# The models


@functools.cache
def made(section, spec=LABELLED):
    model = build(dict(section), spec)
    batch = {"x": jax.random.randint(jax.random.key(0), (8, *spec.shape), 0, spec.bins).astype(jnp.uint8)}
    batch |= {"label": jnp.arange(8) % spec.num_classes} if spec.num_classes else {}
    params, state = jax.jit(model.init)(jax.random.key(1), batch)
    return model, params, state, batch


def test_energies_scores_and_classes_of_jem_are_those_of_its_logits():
    model, params, state, batch = made(tuple(JEM.items()))
    x, label = batch["x"].astype(jnp.float32), batch["label"]

    @jax.jit
    def everything(x):
        own = lambda x: model.classify(params, state, x)[jnp.arange(8), label].sum()  # noqa: E731
        return (
            model.classify(params, state, x),
            model.energy(params, state, x),
            model.energy(params, state, x, {"label": label}),
            model.score(params, state, x),
            model.score(params, state, x, {"label": label}),
            jax.grad(lambda x: jax.nn.logsumexp(model.classify(params, state, x), axis=1).sum())(x),
            jax.grad(own)(x),
        )

    logits, energy, joint, score, joint_score, gradient, own_gradient = everything(x)
    np.testing.assert_allclose(energy, -np.logaddexp.reduce(np.asarray(logits), 1), rtol=1e-5)
    np.testing.assert_array_equal(joint, -np.asarray(logits)[np.arange(8), label])
    np.testing.assert_allclose(score, gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(joint_score, own_gradient, rtol=1e-4, atol=1e-7)
    assert (np.abs(score).max((1, 2, 3)) > 1e-5).all()
    assert np.abs(score - joint_score).max() > 1e-4


def test_samples_of_a_label_lower_the_energy_of_that_label():
    section = JEM | {"steps": 40, "step_size": 5.0, "noise": 0.0}
    model, params, state, _ = made(tuple(section.items()))

    @jax.jit
    def logits(label):
        x = model.sample(params, state, jax.random.key(0), 12, {"label": label})
        return model.classify(params, state, x)

    found = np.stack([np.asarray(logits(jnp.full(12, k))).mean(0) for k in range(3)])
    assert (found.argmax(0) == np.arange(3)).all()  # a class is likelier in its own samples than in others


def test_the_loss_of_jem_is_that_of_a_classifier_and_that_of_an_energy():
    section = JEM | {"weight": 0.25, "input_noise": 0.0}
    model, params, state, batch = made(tuple(section.items()))
    loss, (new, metrics) = jax.jit(model.losses["model"])(params, state, jax.random.key(2), batch)
    np.testing.assert_allclose(loss, metrics["cross_entropy_loss"] + 0.25 * metrics["contrastive_loss"], rtol=1e-5)
    logits = jax.jit(model.classify)(params, state, batch["x"].astype(jnp.float32))
    own = jax.nn.log_softmax(logits)[jnp.arange(8), batch["label"]]
    np.testing.assert_allclose(metrics["cross_entropy_loss"], -own.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(1) == batch["label"]).mean())
    np.testing.assert_allclose(metrics["energy_data"], -jax.nn.logsumexp(logits, axis=1).mean(), rtol=1e-5)
    changed = (np.asarray(new[CHAINS]) != np.asarray(state[CHAINS])).any((2, 3, 4))
    np.testing.assert_array_equal(changed.sum(1), np.ones(8))


def test_a_blown_up_energy_is_said_by_the_model():
    model, params, state, batch = made(
        tuple((IGEBM | {"spectral_normalization": False, "regularization": 0.0}).items())
    )
    loss = jax.jit(model.losses["model"])
    assert loss(params, state, jax.random.key(0), batch)[1][1]["diverged"] == 0
    huge = jax.tree.map(lambda a: a, params)
    huge["model"]["last"] = {"kernel": 1e5 * params["model"]["last"]["kernel"], "bias": jnp.zeros(1)}
    assert loss(huge, state, jax.random.key(0), batch)[1][1]["diverged"] == 1


def test_kernels_of_any_size_give_the_energy_of_normalized_ones():
    model, params, state, batch = made(tuple(IGEBM.items()))
    energy = jax.jit(model.energy)
    scaled = {"model": jax.tree.map(lambda a: 7.0 * a if a.ndim > 1 else a, params["model"])}
    one = energy(params, state, batch["x"])
    np.testing.assert_allclose(one, energy(scaled, state, batch["x"]), rtol=1e-3)
    assert np.abs(one - energy(params, state, 7.0 - batch["x"])).max() > 1e-4
    other = made(tuple((IGEBM | {"spectral_normalization": False}).items()))
    assert np.abs(other[0].energy(params, {}, batch["x"]) - one).max() > 1e-3
    kept = model.losses["model"](scaled, state, jax.random.key(0), batch)[1][0]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), kept["spectral"], state["spectral"])
    assert max(jax.tree.leaves(moved)) > 0


def test_the_energy_of_an_image_is_that_of_its_equally_likely_labels():
    model, params, state, batch = made(tuple((IGEBM | {"conditional": True}).items()))
    block = params["model"]["stage_0_block_0"]
    params["model"]["stage_0_block_0"] = block | {"gain": jax.random.normal(jax.random.key(5), block["gain"].shape)}

    @jax.jit
    def energies(x):
        each = [model.energy(params, state, x, {"label": jnp.full(8, k)}) for k in range(3)]
        return jnp.stack(each, 1), model.energy(params, state, x), model.classify(params, state, x)

    joint, energy, logits = (np.asarray(a) for a in energies(batch["x"].astype(jnp.float32)))
    np.testing.assert_allclose(logits, -joint, rtol=1e-5)
    np.testing.assert_allclose(energy, -np.logaddexp.reduce(-joint, 1), rtol=1e-5)
    assert np.abs(joint[:, 0] - joint[:, 1]).min() > 1e-6


def test_chains_are_shown_as_data_and_what_is_astray_is_nan():
    model, params, state, _ = made(tuple(JEM.items()))
    shown = model.energy_based.chains(params, state)
    assert shown.shape == (16, *LABELLED.shape)
    assert set(np.unique(shown)) == set(range(8))
    away = {CHAINS: state[CHAINS].at[0, 0, 0, 0, 0].set(100.0)}
    assert np.isnan(model.energy_based.chains(params, away)).sum() == 1


def test_samples_go_on_from_the_buffer_if_asked():
    section = JEM | {"sample_from_buffer": True, "noise": 0.0, "step_size": 1e-6, "conditional": False}
    model, params, state, _ = made(tuple(section.items()))
    drawn = np.asarray(model.sample(params, state, jax.random.key(0), 5))
    chains = np.asarray(model.energy_based.chains(params, state))
    assert all((chains == x).all((1, 2, 3)).any() for x in drawn)


# The networks


def test_the_published_network_has_its_published_size():
    shapes = jax.eval_shape(wide_resnet(28, 10, "group")(10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == 36_479_194  # 36.5 M: table 5 of the paper


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_wide_resnet_halves_twice_and_sees_examples_alone(norm):
    network, x = wide_resnet(10, 1, norm)(3), jax.random.normal(jax.random.key(0), (4, 7, 8, 2))
    params = network.init(jax.random.key(1), x)
    apply = jax.jit(network.apply)
    np.testing.assert_allclose(apply(params, x)[:1], network.apply(params, x[:1]), rtol=1e-4, atol=1e-6)
    reached = jax.jit(jax.grad(lambda x: network.apply(params, x).sum()))(x)
    assert (np.abs(reached).max((0, 3)) > 0).all()


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        (IGEBM | {"multipliers": (1, 1, 1)}, IMAGES, "3 stages halve images of 4x4 too often"),
        (IGEBM | {"width": 0}, IMAGES, "width=0"),
        (IGEBM | {"steps": 0}, IMAGES, "steps=0 must be above zero"),
        (IGEBM | {"step_size": 0.0}, IMAGES, "step_size=0.0 and divergence=100.0 must be above zero"),
        (IGEBM | {"restarts": 1.5}, IMAGES, "restarts=1.5 is a probability"),
        (IGEBM | {"noise": -1.0}, IMAGES, "noise=-1.0.* must not be negative"),
        (IGEBM | {"conditional": True}, IMAGES, "conditional=True, but images has no labels"),
        (IGEBM, POINTS, "models images of integers; points has events of shape"),
        (JEM, IMAGES, "classifies, but images has no labels"),
        (JEM | {"depth": 12}, LABELLED, "depth=12: expected 10, 16, 22, 28"),
        (JEM | {"norm": "batch"}, LABELLED, "norm='batch': expected one of none, group"),
        ({"name": "classifier"}, IMAGES, "classifies, but images has no labels"),
        ({"name": "classifier", "width": 0}, LABELLED, "width=0 must be above zero"),
    ],
)
def test_a_section_that_makes_no_chain_is_refused(section, spec, message):
    with pytest.raises(UserError, match=message):
        build(section, spec)


def test_an_energy_network_refuses_images_that_it_cannot_halve():
    with pytest.raises(ValueError, match="2 stages halve images of 6x6 too often"):
        energy_resnet(4, (1, 1), 1).init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
