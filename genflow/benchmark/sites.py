"""Our contestants for autoregressive models: a train step, or samples by one of the samplers.

Usage: python -m genflow.benchmark.sites '{"task": "sample", "system": {"shape": [28, 28, 1], "bins": 2, "model":
{"name": "gated_pixelcnn"}}, "rows": 16, "method": "cached", "num_sites": 784, "compared": 784}' with a task of TASKS.
"""

import hashlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from genflow import models
from genflow.benchmark.ours import Evaluation, TrainStep, compete
from genflow.core import Model, Spec


def build(system: dict) -> tuple[Spec, Model]:
    """The data that a system is for, and its model."""
    spec = Spec("noise", tuple(system["shape"]), system["bins"])
    section = {k: tuple(v) if isinstance(v, list) else v for k, v in system["model"].items()}
    return spec, models.build(section, spec)


def train(system: dict, rows: int) -> TrainStep:
    """Forward, backward and Adam on one batch of noise."""
    spec, model = build(system)
    return TrainStep(model, {"x": random_events(spec, rows)})


class Sampling(Evaluation):
    """Draws the first `num_sites` sites of `rows` examples by one method."""

    def __init__(self, system: dict, rows: int, method: str, num_sites: int, compared: int):
        spec, model = build(system)
        x = random_events(spec, rows)
        params, state = jax.jit(model.init)(jax.random.key(0), {"x": x})
        leaves, structure = jax.tree.flatten(params)  # a fresh network may ignore its input
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noise = [0.05 * jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
        params = structure.unflatten([a + n for a, n in zip(leaves, noise, strict=True)])
        known = jnp.zeros(spec.shape, bool)

        def draw(params, key):
            return model.complete(params, state, key, 0 * x, known, method=method, num_sites=num_sites)

        super().__init__(draw, params, jax.random.key(2))
        self.sites, self.compared = model.sites, compared

    @property
    def digest(self) -> str:
        """Of the first `compared` sites: equal for methods that draw the same."""
        drawn = np.asarray(self.sites(self.compiled(*self._args)))[:, : self.compared]
        return hashlib.sha256(np.ascontiguousarray(drawn)).hexdigest()[:12]


def random_events(spec: Spec, rows: int) -> jax.Array:
    """Random integers in the form of the data."""
    return jnp.asarray(np.random.default_rng(0).integers(0, spec.bins, (rows, *spec.shape), np.uint8))


TASKS = {"train": train, "sample": Sampling}


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    arguments = json.loads(sys.argv[1])
    compete(TASKS[arguments.pop("task")](**arguments))
