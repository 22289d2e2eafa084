"""Our contestant of the Glow train step.

Usage: python -m genflow.benchmark.glow_step '{"depth": 8, "width": 128, ...}' (the fields of `Sizes` and memory).
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from genflow.benchmark.ours import TrainStep, compete
from genflow.core import Spec
from genflow.models.glow import glow


def train_step(levels: int, depth: int, width: int, image: int, batch: int, memory: str) -> TrainStep:
    """Forward, backward and Adam on one batch of noise."""
    model = glow(Spec("noise", (image, image, 3), 256), levels, depth, width, memory=memory)
    images = np.random.default_rng(0).integers(0, 256, (batch, image, image, 3), np.uint8)
    return TrainStep(model, {"x": jnp.asarray(images)})


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    compete(train_step(**json.loads(sys.argv[1])))
