"""What our contestants have in common: a compiled program that runs again and again."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from genflow import provenance
from genflow.benchmark.turns import serve, timed
from genflow.core import Batch, Model, Params, partition
from genflow.optimizers import make_optimizers
from genflow.step import init_state, make_call, make_step

ADAM = {
    "name": "adam",
    "learning_rate": 1e-5,  # a deep flow on one batch of noise diverges at more, and a skipped update costs nothing
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "schedule": "constant",
    "warmup_steps": 0,
    "final_scale": 1.0,
    "initial_second_moment": 0.0,
    "milestones": (),
    "clip_norm": 0.0,
    "skip_norm": 0.0,
    "weight_decay": 0.0,
    "decay_pattern": "kernel$",
    "every": 1,
    "groups": {},
}


class Evaluation:
    """A function of fixed arguments; calling it returns when the device is done."""

    def __init__(self, function: Callable, params: Params, *rest):
        self._jitted, self._args = jax.jit(function), (params, *rest)
        self.parameter_bytes = _bytes(params)

    def compile(self) -> None:
        """Traces and compiles for the shapes at hand."""
        self.compiled = self._jitted.lower(*self._args).compile()

    def __call__(self):
        """Evaluates once and waits for it."""
        jax.block_until_ready(self.compiled(*self._args))


class TrainStep:
    """The training step that `main.py` runs, in the loop of several steps that it runs it in.

    Args:
      batch: the data of every step, or with `rows` [steps, B] a data set, of which each step of a call takes a row of
        indices.
      optimizer: what the `optimizer` section of a configuration says.
    """

    def __init__(self, model: Model, batch: Batch, optimizer: Mapping = ADAM, rows: np.ndarray | None = None):
        optimizers = make_optimizers(optimizer, list(model.losses), 1)
        fetch = (lambda step, data, entry: data) if rows is None else _gathered
        rows = np.zeros(1, np.int32) if rows is None else rows
        feed = {"row": jnp.asarray(rows)}
        first = fetch(0, batch, {"row": feed["row"][0]})
        self._state = jax.jit(lambda key, b: init_state(model, optimizers, 0.0, key, b))(jax.random.key(0), first)
        self.parameter_bytes = _bytes(self._state.params)
        step = make_step(model, optimizers, seed=0)
        self._jitted = jax.jit(make_call(step, fetch), donate_argnums=0)
        self._rest = (batch, feed, np.int32(len(rows)))

    def compile(self) -> None:
        """Traces and compiles for the shapes at hand."""
        self.compiled = self._jitted.lower(self._state, *self._rest).compile()

    def __call__(self):
        """Takes the steps of one call and waits for them.

        Raises:
          FloatingPointError: the update was not finite, and so skipped: its time would flatter us.
        """
        self._state, metrics = self.compiled(self._state, *self._rest)
        jax.block_until_ready((self._state, metrics))
        if int(metrics["skipped"]):
            raise FloatingPointError("an update was not finite")


def _gathered(step, data, entry):
    return {name: a[entry["row"]] for name, a in data.items()}


def _bytes(params):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(partition(params)[0]))


def compete(program: Evaluation | TrainStep) -> None:
    """Compiles, runs once and serves."""
    compile_time, first = timed(program.compile), timed(program)
    facts = {
        "first_call": [a + b for a, b in zip(compile_time, first, strict=True)],
        "temporary_bytes": program.compiled.memory_analysis().temp_size_in_bytes,
        "parameter_bytes": program.parameter_bytes,
        "versions": provenance.versions(),
        "device": f"JAX on {provenance.hardware()}",
        "digest": getattr(program, "digest", ""),
    }
    serve(facts, program)
