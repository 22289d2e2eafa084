"""The suite of energy-based models: contrastive divergence and Langevin chains beside PyTorch."""

import json
import sys
from collections.abc import Mapping
from typing import NamedTuple

from genflow.benchmark.autoregressive_suite import beside_torch
from genflow.benchmark.core_suite import ENVIRONMENT
from genflow.benchmark.parts import run_parts
from genflow.benchmark.turns import Contestant

RBM = {"name": "rbm", "hidden": 500, "gibbs_steps": 1, "persistent": False, "centering": False}
CHAINS = {"steps": 60, "step_size": 10.0, "noise": 0.005, "max_gradient": 0.01, "restarts": 0.05}
IGEBM = {"name": "igebm", "activation": "leaky_relu", "regularization": 1.0, "buffer": 10_000} | CHAINS


class Work(NamedTuple):
    """One table: train steps of a system beside a file of scripts/peers."""

    system: Mapping
    rows: int
    peer: str
    examples: int = 0  # of the data set that a turn goes through once; 0: a step on one batch


WORKS = {
    "rbm_epoch": Work({"shape": (28, 28, 1), "bins": 2, "model": RBM}, 100, "torch_rbm", 60_000),
    "igebm_small_train": Work(
        {"shape": (8, 8, 1), "bins": 17, "model": IGEBM | {"width": 32, "multipliers": (1, 2), "blocks": 1}},
        64,
        "torch_igebm",
    ),
    "igebm_train": Work(
        {"shape": (32, 32, 3), "bins": 256, "model": IGEBM | {"width": 16, "multipliers": (1, 2, 2), "blocks": 1}},
        16,
        "torch_igebm",
    ),
}
PARTS = tuple(WORKS)
LEARNING_RATE = 0.01  # of contrastive divergence


class Sizes(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...] = PARTS
    rounds: int = 5
    steps: int = 3  # train steps, or epochs, in a turn
    works: Mapping[str, Work] = WORKS


TINY = {
    "rbm_epoch": Work({"shape": (4, 4, 1), "bins": 2, "model": RBM | {"hidden": 5}}, 4, "torch_rbm", 12),
    "igebm_train": Work(
        {"shape": (4, 4, 1), "bins": 5, "model": IGEBM | {"width": 4, "multipliers": (1,), "blocks": 1, "steps": 3}},
        2,
        "torch_igebm",
    ),
}
QUICK = Sizes(("rbm_epoch",), 1, 1, WORKS | TINY)


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures the parts; prints each table as soon as it is there and returns all figures.

    Raises:
      UserError: a part that does not exist.
    """
    return run_parts(sizes, PARTS, measured, peer_python)


def measured(sizes: Sizes, name: str, peer_python: str) -> list[dict]:
    """Ours beside torch's contestants, with their table on stdout."""
    work = sizes.works[name]
    arguments, what = {"task": "train", "rows": work.rows}, "train step"
    if work.examples:
        arguments |= {"task": "epoch", "examples": work.examples, "learning_rate": LEARNING_RATE}
        what = f"{work.examples // work.rows} updates"
    command = [sys.executable, "-m", "genflow.benchmark.energies", json.dumps(arguments | {"system": work.system})]
    ours = [Contestant("genflow", command, ENVIRONMENT)]
    return beside_torch(name, ours, work.peer, arguments, PEERS[work.peer](work.system), sizes, peer_python, what)


def _torch_rbm(system):
    """Torch's contestants and their networks: the gradient by hand or by autograd, and with one thread."""
    side, _, channels = system["shape"]
    network = {"dims": side * side * channels, "hidden": system["model"]["hidden"], "by_hand": True, "threads": 0}
    return _varied(network, {"torch, autograd": {"by_hand": False}, "torch, one thread": {"threads": 1}})


def _torch_igebm(system):
    """Torch's contestants and their networks: it is faster in one memory layout or in the other, or on one core."""
    side, _, channels = system["shape"]
    names = ("width", "multipliers", "blocks", "buffer", "regularization", *CHAINS)
    network = {"side": side, "channels": channels, "bins": system["bins"], "channels_last": False, "threads": 0}
    network |= {name: system["model"][name] for name in names}
    return _varied(network, {"torch, channels last": {"channels_last": True}, "torch, one thread": {"threads": 1}})


def _varied(network, changes):
    """Threads wait for each other in a loop, which costs most of the time where another process is on their core."""
    return [("torch", network)] + [(name, network | change) for name, change in changes.items()]


PEERS = {"torch_rbm": _torch_rbm, "torch_igebm": _torch_igebm}
