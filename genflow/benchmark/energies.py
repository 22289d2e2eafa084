"""Our contestants for energy-based models: a train step, or an epoch of them over data on the device.

Usage: python -m genflow.benchmark.energies '{"task": "epoch", "system": {"shape": [28, 28, 1], "bins": 2, "model":
{"name": "rbm", "hidden": 500}}, "rows": 100, "examples": 60000, "learning_rate": 0.01}' with a task of TASKS.
"""

import json
import sys

import jax
import numpy as np

from genflow.benchmark.ours import ADAM, TrainStep, compete
from genflow.benchmark.sites import build, random_events, train


def epoch(system: dict, rows: int, examples: int, learning_rate: float) -> TrainStep:
    """One pass of plain gradient descent over random `examples` in batches of `rows`, as one call."""
    spec, model = build(system)
    order = np.random.default_rng(1).permutation(examples).astype(np.int32)
    descent = ADAM | {"name": "sgd", "b1": 0.0, "learning_rate": learning_rate}
    batches = order[: examples // rows * rows].reshape(-1, rows)
    return TrainStep(model, {"x": random_events(spec, examples)}, descent, batches)


TASKS = {"train": train, "epoch": epoch}


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    arguments = json.loads(sys.argv[1])
    compete(TASKS[arguments.pop("task")](**arguments))
