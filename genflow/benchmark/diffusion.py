"""Our contestants for diffusion models: a train step, or samples in one compiled loop.

Usage: python -m genflow.benchmark.diffusion '{"task": "sample", "system": {"shape": [32, 32, 3], "bins": 256, "model":
{"name": "ddpm", "width": 32, "multipliers": [1, 2, 4]}}, "rows": 8, "num_steps": 100}' with a task of TASKS.
"""

import json
import sys

import jax

from genflow.benchmark.ours import Evaluation, compete
from genflow.benchmark.sites import build, random_events, train


class Sampling(Evaluation):
    """`rows` examples in `num_steps` steps of a sampler; '': the model's own."""

    def __init__(self, system: dict, rows: int, num_steps: int, sampler: str = ""):
        spec, model = build(system)
        params, state = jax.jit(model.init)(jax.random.key(0), {"x": random_events(spec, rows)})

        def draw(params, key):
            return model.sample(params, state, key, rows, sampler=sampler, num_steps=num_steps)

        super().__init__(draw, params, jax.random.key(1))


TASKS = {"train": train, "sample": Sampling}


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    arguments = json.loads(sys.argv[1])
    compete(TASKS[arguments.pop("task")](**arguments))
