"""The one step: groups, skipping, accumulation, averaging, many steps in one call, one device equals eight."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from genflow import sharding
from genflow.collectives import collectives
from genflow.core import Model
from genflow.errors import UserError
from genflow.optimizers import make_optimizers, path_mask
from genflow.step import TrainState, averaged_params, init_state, make_call, make_step

OPTIONS = {
    "name": "sgd",
    "learning_rate": 0.1,
    "b1": 0.0,
    "b2": 0.999,
    "eps": 1e-8,
    "schedule": "constant",
    "warmup_steps": 0,
    "final_scale": 0.0,
    "initial_second_moment": 0.0,
    "milestones": (),
    "clip_norm": 0.0,
    "skip_norm": 0.0,
    "weight_decay": 0.0,
    "decay_pattern": "kernel",
    "accumulate": 1,
    "every": 1,
    "groups": {},
}


def two_players() -> Model:
    """A generator and a critic that pull on one another, and a state that counts: a GAN in two scalars."""

    def init(key, batch):
        params = {"critic": {"w": jnp.float32(1.0)}, "generator": {"w": jnp.float32(2.0), "fixed": jnp.int32(7)}}
        return params, {"calls": jnp.int32(0), "chain": jnp.float32(0)}

    def critic(params, state, key, batch):
        loss = params["critic"]["w"] * params["generator"]["w"] + batch["x"].mean() * params["critic"]["w"] ** 2
        return loss, ({"calls": state["calls"] + 1, "chain": jax.random.normal(key)}, {"seen": batch["x"].mean()})

    def generator(params, state, key, batch):
        return params["critic"]["w"] * params["generator"]["w"] ** 2, (state, {})

    return Model(init, {"critic": critic, "generator": generator}, None)


def started(model, options=None, seed=0, ema_decay=0.0, accumulate=1, batch=None, ema_warmup=0.0):
    """(step, first state) of a model."""
    optimizers = make_optimizers(OPTIONS | (options or {}), list(model.losses), 100)
    batch = {"x": jnp.ones((8, 2))} if batch is None else batch
    state = init_state(model, optimizers, ema_decay, jax.random.key(seed), batch)
    return jax.jit(make_step(model, optimizers, seed, ema_decay, accumulate, ema_warmup)), state


def test_each_loss_moves_its_own_group_and_groups_go_in_order():
    step, state = started(two_players())
    new, metrics = step(state, {"x": jnp.ones((8, 2))})
    w_critic = 1.0 - 0.1 * (2.0 + 2.0 * 1.0)  # d/dw_c (w_c w_g + x w_c^2)
    w_generator = 2.0 - 0.1 * (2 * w_critic * 2.0)  # sees the critic that has just moved
    np.testing.assert_allclose(new.params["critic"]["w"], w_critic, rtol=1e-6)
    np.testing.assert_allclose(new.params["generator"]["w"], w_generator, rtol=1e-6)
    assert new.params["generator"]["fixed"] == 7
    assert new.state["calls"] == 1
    assert {"critic/loss", "critic/grad_norm", "critic/seen", "generator/loss"} <= set(metrics)


def test_a_group_has_its_own_optimizer_and_period():
    step, state = started(two_players(), {"groups": {"generator": {"every": 2, "learning_rate": 0.01}}})
    batch = {"x": jnp.ones((8, 2))}
    one, _ = step(state, batch)
    assert one.params["generator"]["w"] == state.params["generator"]["w"]
    assert one.params["critic"]["w"] != state.params["critic"]["w"]
    two, _ = step(one, batch)
    expected = 2.0 - 0.01 * 2 * two.params["critic"]["w"] * 2.0
    np.testing.assert_allclose(two.params["generator"]["w"], expected, rtol=1e-6)


def test_a_group_that_is_not_due_is_not_differentiated_and_its_metrics_are_means_over_updates():
    """A generator whose loss is NaN on odd counts of the critic's calls is asked on the even ones alone."""
    players = two_players()

    def generator(params, state, key, batch):
        loss, (state, _) = players.losses["generator"](params, state, key, batch)
        calls = state["calls"]
        return jnp.where(calls % 2 == 1, jnp.nan, loss), (state | {"chain": 10.0 * calls}, {"calls": 1.0 * calls})

    model = players._replace(losses=players.losses | {"generator": generator})
    optimizers = make_optimizers(OPTIONS | {"groups": {"generator": {"every": 2}}}, list(model.losses), 100)
    batch = {"x": jnp.ones((8, 2))}
    state = init_state(model, optimizers, 0.0, jax.random.key(0), batch)
    call = jax.jit(make_call(make_step(model, optimizers, 0), lambda step, data, entry: batch))
    feed = {"i": jnp.arange(6)}
    after, metrics = call(state, {}, feed, 5)
    assert (after.skipped, after.state["calls"]) == (0, 5)
    assert after.state["chain"] != 50.0  # the critic's, of the fifth step
    np.testing.assert_allclose(metrics["generator/updates"], 2 / 5)
    np.testing.assert_allclose(metrics["generator/calls"], (2 + 4) / 2)
    assert metrics["generator/grad_norm"] > 0
    alone = call(state, {}, feed, 1)[1]
    assert alone["generator/updates"] == 0
    assert np.isnan([alone["generator/loss"], alone["generator/grad_norm"]]).all()  # nobody measured them


def test_an_unknown_group_is_named():
    with pytest.raises(UserError, match=r"config.optimizer.groups.crtic: .* critic, generator"):
        make_optimizers(OPTIONS | {"groups": {"crtic": {}}}, ["critic", "generator"], 10)


def test_the_randomness_of_a_step_is_a_function_of_seed_and_step():
    step, state = started(two_players())
    batch = {"x": jnp.ones((8, 2))}
    chain = [s.state["chain"] for s in (step(state, batch)[0], step(state, batch)[0])]
    assert chain[0] == chain[1]
    later = state._replace(step=jnp.int32(5))
    assert step(later, batch)[0].state["chain"] != chain[0]
    other, first = started(two_players(), seed=1)
    assert other(first, batch)[0].state["chain"] != chain[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_update_changes_nothing_but_the_counters(bad):
    step, state = started(two_players(), {"name": "adam"}, ema_decay=0.9)
    good, broken = {"x": jnp.ones((8, 2))}, {"x": jnp.ones((8, 2)).at[3, 1].set(bad)}
    before, _ = step(state, good)
    after, _ = step(before, broken)
    changed = {"step", "skipped", "skipped_in_a_row"}
    for field in set(TrainState._fields) - changed:
        for a, b in zip(jax.tree.leaves(getattr(before, field)), jax.tree.leaves(getattr(after, field)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=field)
    assert (after.step, after.skipped, after.skipped_in_a_row) == (2, 1, 1)
    again, _ = step(step(after, broken)[0], good)
    assert (again.step, again.skipped, again.skipped_in_a_row) == (4, 2, 0)


def test_an_update_above_the_norm_is_skipped_and_counted_for_its_group_alone():
    """The critic's gradient is 2 + 2 mean(x), the generator's 4 w_c: only the first has a limit, of 4.5."""
    options = {"name": "adam", "clip_norm": 0.1, "groups": {"critic": {"skip_norm": 4.5}}}
    step, state = started(two_players(), options, ema_decay=0.9)
    below, above = {"x": jnp.full((8, 2), 1.24)}, {"x": jnp.full((8, 2), 1.26)}
    after, metrics = step(state, above)
    assert metrics["critic/grad_norm"] > 4.5
    changed = {"step", "skipped", "skipped_in_a_row"}
    for field in set(TrainState._fields) - changed:
        for a, b in zip(jax.tree.leaves(getattr(state, field)), jax.tree.leaves(getattr(after, field)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=field)
    assert (after.step, after.skipped, after.skipped_in_a_row) == (1, 1, 1)
    again, _ = step(after, below)
    assert (again.step, again.skipped, again.skipped_in_a_row) == (2, 1, 0)
    assert again.params["critic"]["w"] != state.params["critic"]["w"]
    free, _ = started(two_players(), {"groups": {"generator": {"skip_norm": 1e3}}})[0](state, above)
    assert free.skipped == 0


def quadratic() -> Model:
    """One group, a loss that is a mean over examples: micro-batches must give the gradient of the whole batch."""

    def init(key, batch):
        return {"model": {"kernel": jnp.arange(2.0), "bias": jnp.zeros(2)}}, {}

    def loss(params, state, key, batch):
        error = batch["x"] * params["model"]["kernel"] + params["model"]["bias"] - 1.0
        return (error**2).mean(), (state, {"nll": (error**2).mean()})

    return Model(init, {"model": loss}, None)


def test_accumulated_micro_batches_equal_one_batch():
    batch = {"x": jax.random.normal(jax.random.key(0), (8, 2))}
    results = []
    for accumulate in (1, 4):
        step, state = started(quadratic(), {"name": "adam"}, accumulate=accumulate, batch=batch)
        new, metrics = step(state, batch)
        results.append((new.params, metrics))
    for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_average_is_debiased_and_keeps_constants():
    step, state = started(two_players(), ema_decay=0.9)
    batch, seen = {"x": jnp.ones((8, 2))}, []
    np.testing.assert_array_equal(averaged_params(state, 0.9)["critic"]["w"], state.params["critic"]["w"])
    for _ in range(3):
        state, _ = step(state, batch)
        seen.append(float(state.params["critic"]["w"]))
    weights = np.array([0.81, 0.9, 1.0])
    averaged = averaged_params(state, 0.9)
    np.testing.assert_allclose(averaged["critic"]["w"], (weights * seen).sum() / weights.sum(), rtol=1e-5)
    assert averaged["generator"]["fixed"] == 7
    assert averaged_params(state, 0.0) is state.params


def test_a_warming_average_forgets_the_first_weights_and_ends_at_its_decay():
    step, state = started(two_players(), {"name": "adam"}, ema_decay=0.9, ema_warmup=0.5)
    expected, batch = 0.0, {"x": jnp.ones((8, 2))}
    for n in range(40):
        state, _ = step(state, batch)
        decay = min(0.9, 0.5 ** (1 / (0.5 * n))) if n else 0.0
        expected = decay * expected + (1 - decay) * float(state.params["critic"]["w"])
        if n in (0, 3, 39):
            averaged = averaged_params(state, 0.9, 0.5)
            np.testing.assert_allclose(averaged["critic"]["w"], expected, rtol=1e-5)
    assert decay == 0.9


def test_a_call_of_many_steps_equals_single_steps_and_its_length_compiles_nothing():
    batch = {"x": jax.random.normal(jax.random.key(0), (6, 8, 2))}
    step, state = started(quadratic(), batch={"x": batch["x"][0]})
    call = jax.jit(make_call(step, lambda step, data, entry: {"x": entry["x"] + data}))
    together, metrics = call(state, 0.5, batch, np.int32(4))
    losses = []
    for i in range(4):
        state, m = step(state, {"x": batch["x"][i] + 0.5})
        losses.append(float(m["loss"]))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-6)
    call(state, 0.5, batch, np.int32(1))
    assert call._cache_size() == 1


def optimizer_update(options, grads, params, steps=1):
    """The parameters after some updates with constant gradients."""
    optimizer = make_optimizers(OPTIONS | options, ["model"], 10)["model"]
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_weight_decay_is_decoupled_and_follows_the_pattern():
    params = {"kernel": jnp.ones(3), "bias": jnp.ones(3)}
    new = optimizer_update({"weight_decay": 0.5}, jax.tree.map(jnp.zeros_like, params), params)
    np.testing.assert_allclose(new["kernel"], 1.0 - 0.1 * 0.5)
    np.testing.assert_allclose(new["bias"], 1.0)
    assert path_mask("a/b", {"a": {"b": 1, "c": 2}}) == {"a": {"b": True, "c": False}}


def test_clipping_bounds_the_global_norm():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    new = optimizer_update({"clip_norm": 1.0}, grads, params)
    np.testing.assert_allclose(new["a"], [-0.1 * 0.6, 0.0], rtol=1e-6)


@pytest.mark.parametrize(("schedule", "last"), [("constant", 0.1), ("cosine", 0.02), ("linear", 0.02)])
def test_schedules_warm_up_and_end_where_they_should(schedule, last):
    options = OPTIONS | {"schedule": schedule, "warmup_steps": 4, "final_scale": 0.2}
    rate = make_optimizers(options, ["model"], 20)["model"].schedule
    np.testing.assert_allclose([rate(0), rate(2), rate(4), rate(20)], [0.0, 0.05, 0.1, last], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["adam", "adamax", "rmsprop", "lion"])
def test_every_update_rule_descends(name):
    new = optimizer_update({"name": name, "b1": 0.9}, {"a": jnp.ones(2)}, {"a": jnp.ones(2)}, steps=3)
    assert (np.asarray(new["a"]) < 1.0).all()


def trained_on(devices_data, devices_model, rules=()):
    """Parameters of `quadratic` after five steps on a mesh of some of the fake devices."""
    devices = np.array(jax.devices()[: devices_data * devices_model]).reshape(devices_data, devices_model)
    mesh = jax.sharding.Mesh(devices, sharding.AXES)
    batch = jax.random.normal(jax.random.key(0), (5, 16, 2))
    optimizers = make_optimizers(OPTIONS | {"name": "adam"}, ["model"], 5)
    model = quadratic()
    shapes = jax.eval_shape(lambda: init_state(model, optimizers, 0.9, jax.random.key(0), {"x": batch[0]}))
    placed = sharding.tree_shardings(mesh, shapes, rules)
    state = jax.jit(
        lambda: init_state(model, optimizers, 0.9, jax.random.key(0), {"x": batch[0]}), out_shardings=placed
    )()
    step = make_step(model, optimizers, 0, 0.9, accumulate=2, layout=sharding.layout(mesh, rules))
    step = jax.jit(step, out_shardings=(placed, None))
    for i in range(5):
        x = sharding.put(np.asarray(batch[i]), sharding.batch_sharding(mesh))
        state, _ = step(state, {"x": x})
        jax.block_until_ready(state)
    return state


BY_AXIS, BY_SIZE = (("kernel", ("model",)),), ((".", ("largest",)),)


@pytest.mark.parametrize(("data", "model", "rules"), [(8, 1, BY_AXIS), (4, 2, BY_AXIS), (4, 2, BY_SIZE), (8, 1, ())])
def test_one_device_equals_many(data, model, rules):
    one, many = trained_on(1, 1), trained_on(data, model, rules)
    cut = PartitionSpec("model") if rules else PartitionSpec()
    assert many.params["model"]["kernel"].sharding.spec == cut
    assert many.opt_state["model"][1].mu["kernel"].sharding.spec == cut
    assert many.ema["model"]["kernel"].sharding.spec == cut
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


def test_rules_speak_of_trailing_dimensions_and_leave_what_does_not_divide():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), sharding.AXES)
    shapes = {
        "stack": {"kernel": jax.ShapeDtypeStruct((3, 5, 8), jnp.float32)},
        "odd": {"kernel": jax.ShapeDtypeStruct((7,), jnp.float32)},
        "state": {"kernel": jax.ShapeDtypeStruct((8,), jnp.float32)},
    }
    placed = sharding.tree_shardings(mesh, shapes, (("kernel", ("model",)),))
    assert placed["stack"]["kernel"].spec == PartitionSpec(None, None, "model")
    assert placed["odd"]["kernel"].spec == PartitionSpec(None)
    assert placed["state"]["kernel"].spec == PartitionSpec()


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((3, 6, 8), (None, None, "model")),
        ((12, 6, 8), ("model", None, None)),
        ((5,), (None,)),
        ((), ()),
        ((0, 3), (None, None)),
    ],
)
def test_the_largest_dimension_that_divides_is_cut(shape, cut):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), sharding.AXES)
    placed = sharding.tree_shardings(mesh, {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}, BY_SIZE)
    assert placed["w"].spec == PartitionSpec(*cut)


def test_parameters_that_are_cut_are_gathered_once_a_step_and_nothing_else_moves():
    wide = jax.sharding.Mesh(np.array(jax.devices()).reshape(1, 8), sharding.AXES)
    kinds = {}
    for name, rules in (("cut", BY_SIZE), ("whole", ())):
        params = {"w": jax.ShapeDtypeStruct((16, 64), jnp.float32), "v": jax.ShapeDtypeStruct((64, 16), jnp.float32)}
        placed = sharding.tree_shardings(wide, params, rules)
        given = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), params, placed)
        x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=sharding.batch_sharding(wide))
        layout = sharding.layout(wide, rules)

        def step(params, x, layout=layout):
            grads = jax.grad(lambda p: ((jnp.tanh(x @ p["w"]) @ p["v"]) ** 2).mean())(layout.gather(params))
            return jax.tree.map(lambda p, g: p - g, params, layout.scatter("model", grads))

        text = jax.jit(step, out_shardings=placed).lower(given, x).compile().as_text()
        kinds[name] = Counter()
        for each in collectives(text):
            kinds[name][each.kind] += each.nbytes * each.count
    nbytes = 4 * 2 * 16 * 64
    assert kinds["whole"] == {"all-reduce": nbytes}
    assert kinds["cut"] == {"all-reduce": nbytes, "all-gather": nbytes}


def test_rows_of_a_batch_lie_where_the_batch_is_cut():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), sharding.AXES)
    rows = np.arange(48.0).reshape(16, 3)
    assert list(sharding.local_rows(mesh, 16)) == list(range(16))  # one process has all devices
    for axis, array in ((0, rows), (1, np.stack([rows, -rows]))):
        placed = sharding.put_rows(mesh, array, 16, axis)
        np.testing.assert_array_equal(np.asarray(placed), array)
        assert placed.sharding == sharding.batch_sharding(mesh, axis)
        assert {shard.data.shape[axis] for shard in placed.addressable_shards} == {2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mesh: sharding.make_mesh(3, 2), "data=3 x model=2 is not the number of devices, 8"),
        (lambda mesh: sharding.make_mesh(-1, 3), "config.sharding.model=3 does not divide the number of devices, 8"),
        (
            lambda mesh: sharding.check_batch(mesh, "data.batch_size", 12),
            "config.data.batch_size=12 must be a multiple of 8",
        ),
        (
            lambda mesh: sharding.tree_shardings(mesh, {"w": jnp.ones(2)}, (("w", ("", "modle")),)),
            "no mesh axis 'modle'; the axes are data, model",
        ),
        (
            lambda mesh: sharding.tree_shardings(mesh, {"w": jnp.ones(2)}, (("w", ("", "largest")),)),
            "or \\('largest',\\) alone",
        ),
        (
            lambda mesh: sharding.tree_shardings(mesh, {"w": jnp.ones((2, 2))}, (("w", ("model", "model")),)),
            "the mesh axis 'model' is named twice",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call(sharding.make_mesh(-1, 1))
