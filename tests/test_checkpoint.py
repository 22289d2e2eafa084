"""Checkpoints: what is saved comes back, on any devices, or the message says which leaf does not fit."""

import collections
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import State, abstract, fill, restored_step, state_at
from jax.sharding import NamedSharding, PartitionSpec

from genflow import checkpoint
from genflow.checkpoint import digest, open_checkpoints
from genflow.errors import UserError
from genflow.leaves import sha256_json


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("pristine") / "checkpoints")


@pytest.fixture
def filled(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def test_round_trip_with_metadata(tmp_path):
    metadata = {"config": {"a": (1, 2), "b": {}}, "best": float("inf"), "text": "é", "none": None, 10: 1, 7: []}
    with open_checkpoints(tmp_path / "a b" / "c", 2) as checkpoints:
        assert checkpoints.restore(state_at(0)) is None
        assert checkpoints.steps() == []
        checkpoints.save(5, state_at(5), metadata)
        state, back = checkpoints.restore(abstract(state_at(0)))
    assert digest(state) == digest(state_at(5))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert back == json.loads(json.dumps(metadata))


def test_keeps_the_latest_and_the_best_apart(tmp_path):
    with open_checkpoints(tmp_path, 2) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, state_at(step), {"step": step})
            if step in (1, 2):
                checkpoints.save(step, state_at(step), {"step": step}, "best")
    assert checkpoint.steps(tmp_path) == [4, 5]
    assert checkpoint.steps(tmp_path, "best") == [2]
    assert restored_step(tmp_path) == 5
    assert restored_step(tmp_path, which="best") == 2
    assert not (tmp_path / "trash").exists()
    assert not (tmp_path / "quarantine").exists()


def test_a_step_that_is_there_is_left_alone(filled):
    with open_checkpoints(filled, 3) as checkpoints:
        checkpoints.save(3, state_at(9), {"step": 9})
    assert restored_step(filled) == 3


def test_steps_of_an_abandoned_continuation_go(filled):
    with open_checkpoints(filled, 3) as checkpoints:
        checkpoints.save(0, state_at(0), {"step": 0})
    assert checkpoint.steps(filled) == [0]


def save_and_fail(directory: Path, step: int, error: type[BaseException]) -> None:
    with open_checkpoints(directory, 3) as checkpoints:
        checkpoints.save(step, state_at(step), {"step": step})
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_last_save_is_committed_after_an_exception(tmp_path, error):
    with pytest.raises(error):
        save_and_fail(tmp_path, 1, error)
    assert restored_step(tmp_path) == 1


def test_the_state_may_be_donated_at_once(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    advance = jax.jit(lambda tree: jax.tree.map(lambda a: a * 3 + 1, tree), donate_argnums=0)
    for sharding in (None, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))):
        tree = jax.device_put({"a": jnp.arange(2**18.0), "b": jnp.ones((8, 1000))}, sharding)
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
        wanted = []
        with open_checkpoints(tmp_path / str(sharding), 9) as checkpoints:
            for step in range(3):
                wanted.append(digest(tree))
                checkpoints.save(step, tree, {})
                tree = advance(tree)
            back, _ = checkpoints.restore(like)
            assert digest(back) == wanted[2]
            assert digest(advance(back)) == digest(tree)  # the restored state is donated in its turn
        for step in (2, 1, 0):
            back, _ = checkpoint.restore(tmp_path / str(sharding), like)
            assert digest(back) == wanted[step]
            shutil.rmtree(tmp_path / str(sharding) / "latest" / str(step))


def test_eight_devices_to_one_to_eight(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    shardings = jax.tree.map(lambda a: split if a.shape[:1] == (8,) else everywhere, state_at(4))
    one = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    eight = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state_at(4), shardings)
    state = jax.device_put(state_at(4), shardings)
    for step, target in enumerate((abstract(state, one), eight)):
        with open_checkpoints(tmp_path, 2) as checkpoints:
            checkpoints.save(step, state, {})
            state, _ = checkpoints.restore(target)
        assert digest(state) == digest(state_at(4))
        assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, target)


def test_digest_sees_every_change_and_no_order():
    tree = {"a": jnp.arange(6.0), "b": {"c": jnp.ones((2, 3)), "d": jnp.int32(1)}}
    turned = collections.OrderedDict(
        b={"d": jnp.int32(1), "c": jnp.ones((2, 3))},
        a=np.arange(6, dtype=np.float32),
    )
    changes = [
        {**tree, "a": tree["a"].at[5].set(5.0000005)},
        {**tree, "a": tree["a"].reshape(2, 3)},
        {**tree, "a": tree["a"].at[0].set(-0.0)},
        {**tree, "b": {"c": jnp.ones((2, 3)), "e": jnp.int32(1)}},
        {**tree, "b": {"c": jnp.ones((2, 3)), "d": jnp.uint32(1)}},
        {**tree, "b": {"c": jnp.ones((2, 3))}},
    ]
    assert digest(tree) == digest(turned)
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert re.fullmatch("[0-9a-f]{64}", digest(tree))
    assert len({digest(t) for t in (tree, *changes)}) == 1 + len(changes)


def test_names_must_differ():
    with pytest.raises(ValueError, match="same name"):
        digest({"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)})


# A checkpoint of another model.


def with_leaf(name: str, leaf: Any) -> State:
    state = state_at(0)
    return state._replace(params={**state.params, "flow": {**state.params["flow"], name: leaf}})


HINT = [("model.width", 64, 32), ("model.levels", (1, 2), ())]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (with_leaf("kernel", jnp.zeros((4, 32, 8))), r"flow/kernel: stored float32\[4,64,8\], model float32\[4,32,8\]"),
        (with_leaf("kernel", jnp.zeros((4, 64, 8), jnp.bfloat16)), r"flow/kernel: .*, model bfloat16\[4,64,8\]"),
        (with_leaf("kernel", jnp.zeros((4, 64, 8), jnp.int32)), r"flow/kernel: .*, model int32\[4,64,8\]"),
        (with_leaf("scale", jnp.zeros(())), r"flow/scale: stored nowhere, model float32\[\]"),
        (state_at(0)._replace(chains=()), r"chains/0: stored uint8\[8,999\], model nowhere"),
        (state_at(0)._replace(params={f"x{i}": np.zeros(i) for i in range(200)}), r"and 19\d more"),
        ({}, "does not fit"),
    ],
)
def test_a_misfit_names_leaves_and_fields_and_is_no_damage(pristine, target, told):
    with pytest.raises(UserError, match=told) as caught:
        checkpoint.restore(pristine, target, hint=HINT)
    message = str(caught.value)
    assert len(message.splitlines()) <= 20
    assert "latest/3 does not fit" in message
    assert "config.model.width: 64 -> 32" in message
    assert checkpoint.steps(pristine) == [1, 2, 3]


def test_every_field_and_leaf_differs_in_twenty_lines(pristine):
    hint = [(f"model.field_{i}", 0, 1) for i in range(100)]
    target = {f"x{i}": jnp.zeros(i) for i in range(100)}
    with pytest.raises(UserError, match="and 95 more") as caught:
        checkpoint.restore(pristine, target, hint=hint)
    assert len(str(caught.value).splitlines()) <= 20
