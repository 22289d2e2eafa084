"""Our contestants for latent variable models: a train step, or the importance weighted bound of a batch.

Usage: python -m genflow.benchmark.latents '{"task": "bound", "system": {"shape": [28, 28, 1], "bins": 2, "model":
{"name": "vae", "latent_dims": 50, "widths": [200, 200]}}, "rows": 100, "samples": 5000, "per_call": 50}' with a task of
TASKS.
"""

import json
import sys

import jax
import jax.numpy as jnp

from genflow.benchmark.ours import Evaluation, compete
from genflow.benchmark.sites import build, random_events, train
from genflow.evaluate import compiled_weights


class Bound(Evaluation):
    """The bound of `samples` draws for each of `rows` examples, `per_call` of them in memory at once."""

    def __init__(self, system: dict, rows: int, samples: int, per_call: int):
        spec, model = build(system)
        batch = {"x": random_events(spec, rows)}
        params, state = jax.jit(model.init)(jax.random.key(0), batch)
        bound = compiled_weights(model.log_weights, per_call)
        super().__init__(bound, params, state, jax.random.key(1), batch, jnp.int32(samples))


TASKS = {"train": train, "bound": Bound}


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    arguments = json.loads(sys.argv[1])
    compete(TASKS[arguments.pop("task")](**arguments))
