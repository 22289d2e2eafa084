"""Our contestant: the Glow train step that `main.py` runs, in the loop of several steps that it runs it in.

Usage: python -m genflow.benchmark.glow_step '{"depth": 8, "width": 128, ...}' (the fields of `Sizes` and memory).
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from genflow import provenance
from genflow.benchmark.turns import serve, timed
from genflow.core import Spec
from genflow.models import glow
from genflow.optimizers import make_optimizers
from genflow.step import init_state, make_call, make_step

ADAM = {
    "name": "adam",
    "learning_rate": 1e-3,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "schedule": "constant",
    "warmup_steps": 0,
    "final_scale": 1.0,
    "clip_norm": 0.0,
    "weight_decay": 0.0,
    "decay_pattern": "kernel$",
    "every": 1,
    "groups": {},
}


class GlowStep:
    """One training step on one batch of noise, again and again; calling it returns when the device is done."""

    def __init__(self, levels: int, depth: int, width: int, image: int, batch: int, memory: str):
        model = glow(Spec("noise", (image, image, 3), 256), levels, depth, width, memory=memory)
        optimizers = make_optimizers(ADAM, list(model.losses), 1)
        images = np.random.default_rng(0).integers(0, 256, (batch, image, image, 3), np.uint8)
        self._batch = {"x": jnp.asarray(images)}
        self._state = jax.jit(lambda key, b: init_state(model, optimizers, 0.0, key, b))(jax.random.key(0), self._batch)
        step = make_step(model, optimizers, seed=0)
        call = make_call(step, lambda step, data, entry: data)
        self._jitted = jax.jit(call, donate_argnums=0)
        self._rest = (self._batch, {"row": jnp.zeros(1, jnp.int32)}, np.int32(1))

    def compile(self) -> None:
        """Traces and compiles for the shapes at hand."""
        self.compiled = self._jitted.lower(self._state, *self._rest).compile()

    def __call__(self):
        """Takes one step and waits for it."""
        self._state, metrics = self.compiled(self._state, *self._rest)
        jax.block_until_ready((self._state, metrics))


def main(sizes: dict) -> None:
    """Compiles, takes the first step and serves."""
    jax.config.update("jax_default_matmul_precision", "float32")
    step = GlowStep(**sizes)
    compile_time, first = timed(step.compile), timed(step)
    facts = {
        "first_call": [a + b for a, b in zip(compile_time, first, strict=True)],
        "temporary_bytes": step.compiled.memory_analysis().temp_size_in_bytes,
        "versions": provenance.versions(),
        "device": f"JAX on {provenance.hardware()}",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
