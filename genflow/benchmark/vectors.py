"""Our contestants for flows of vectors: training, density and sampling.

Usage: python -m genflow.benchmark.vectors '{"task": "train", "rows": 1000, "flow": {"kind": "maf", "dims": 43, "depth":
5, "width": 512}}' with a task of TASKS and a flow of FLOWS.
"""

import json
import sys

import jax

from genflow import bijectors as bj
from genflow.benchmark.ours import Evaluation, TrainStep, compete
from genflow.core import Model, Spec
from genflow.models.autoregressive_flow import maf
from genflow.models.flow import flow
from genflow.networks import mlp

BOUND = 5.0  # of the splines, for every contestant


def masked_flow(dims: int, depth: int, width: int) -> Model:
    """The library's MAF, two hidden layers a network."""
    return maf(Spec("noise", (dims,), None), depth, (width, width))


def spline_flow(dims: int, depth: int, width: int, bins: int) -> Model:
    """Rational-quadratic couplings with the order reversed in between, two hidden layers a network."""
    spline = bj.rational_quadratic_spline(bins, BOUND)
    layer = bj.coupling(spline, mlp((width, width), jax.nn.relu, zero_last=True))
    return flow(Spec("noise", (dims,), None), bj.repeat(bj.chain(coupling=layer, flip=bj.flip()), depth))


def train(model: Model, x: jax.Array) -> TrainStep:
    """Forward, backward and Adam."""
    return TrainStep(model, {"x": x})


def log_prob(model: Model, x: jax.Array) -> Evaluation:
    """The density of every row."""
    params, state = _start(model, x)
    return Evaluation(lambda params, x: model.log_prob(params, state, None, {"x": x}), params, x)


def sample(model: Model, x: jax.Array) -> Evaluation:
    """As many samples as there are rows."""
    params, state = _start(model, x)
    return Evaluation(lambda params, key: model.sample(params, state, key, len(x)), params, jax.random.key(0))


def _start(model, x):
    return jax.jit(model.init)(jax.random.key(0), {"x": x})


FLOWS = {"maf": masked_flow, "spline": spline_flow}
TASKS = {"train": train, "log_prob": log_prob, "sample": sample}


def main(task: str, rows: int, flow: dict) -> None:
    """Builds the flow for rows of noise and competes."""
    sizes = dict(flow)
    model = FLOWS[sizes.pop("kind")](**sizes)
    compete(TASKS[task](model, jax.random.normal(jax.random.key(1), (rows, flow["dims"]))))


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    main(**json.loads(sys.argv[1]))
