"""A state with leaves of every kind, and folders full of it, for the tests of checkpoints."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genflow.checkpoint import digest, open_checkpoints

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


class State(NamedTuple):
    step: Any
    params: Any
    optimizer: Any
    chains: Any


def state_at(step: int) -> State:
    rng = np.random.default_rng(step)
    kernel = jnp.asarray(rng.normal(size=(4, 64, 8)), jnp.float32)
    params = {"flow": {"kernel": kernel, "bias": jnp.full(8, step, jnp.bfloat16)}, "none": {}}
    chains = (jnp.asarray(rng.integers(0, 256, (8, 999)), jnp.uint8), jnp.arange(8) > step, jnp.zeros((0, 3)), None)
    return State(jnp.int32(step), params, OPTIMIZER.init(params), chains)


def abstract(state: State, sharding=None) -> State:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), state)


def fill(directory: Path, steps=(1, 2, 3), keep=3) -> Path:
    with open_checkpoints(directory, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step), {"step": step})
    return directory


def restored_step(directory: Path, **kwargs) -> int | None:
    """The step that a resumed run gets, after checking all its bytes."""
    with open_checkpoints(directory, 3) as checkpoints:
        found = checkpoints.restore(abstract(state_at(0)), **kwargs)
    if found is None:
        return None
    state, metadata = found
    assert metadata == {"step": int(state.step)}
    assert digest(state) == digest(state_at(int(state.step)))
    assert jax.tree.structure(state) == jax.tree.structure(state_at(0))
    return int(state.step)


def files(step: Path) -> list[Path]:
    return sorted(p for p in step.rglob("*") if p.is_file())
