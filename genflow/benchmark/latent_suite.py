"""The suite of latent variable models: train steps beside PyTorch, and how fast the importance weighted bound is."""

import json
import os
import sys
from typing import NamedTuple

from genflow.benchmark import core_suite
from genflow.benchmark.autoregressive_suite import beside_torch, facts_of
from genflow.benchmark.core_suite import ENVIRONMENT
from genflow.benchmark.tables import table
from genflow.benchmark.turns import Contestant, take_turns
from genflow.errors import UserError

VAE = {"name": "vae", "latent_dims": 50, "widths": (200, 200), "activation": "tanh"}
HVAE = {"name": "hvae", "width": 64, "kernels": (5, 3, 3), "strides": (2, 2, 1), "latents": (8, 16, 8)}
HVAE |= {"num_dense": 2, "blocks": 3, "inference": "bottom_up", "activation": "relu"}
NVAE = {"name": "nvae", "width": 16, "groups": (8,), "channels": 8, "cells": 2, "blocks": 1, "block_cells": 2}
SYSTEMS = {"nvae": {"shape": (16, 16, 3), "bins": 256, "model": NVAE}} | {
    name: {"shape": (28, 28, 1), "bins": 2, "model": model}
    for name, model in {"vae": VAE, "hvae": HVAE, "hvae, small": HVAE | {"width": 16, "blocks": 2}}.items()
}
PER_CALL = (1, 16, 64)  # draws in memory at once


class Training(NamedTuple):
    """One table of train steps."""

    system: str
    rows: int
    peer: str = ""  # the file of scripts/peers, if there is one
    samples: int = 1
    memory: tuple[str, ...] = ()  # modes of ours, where the model has them


TRAINING = {
    "vae_train": Training("vae", 100, "torch_vae"),
    "iwae_train": Training("vae", 100, "torch_vae", 5),
    "hvae_train": Training("hvae", 32, "torch_hvae"),
    "hvae_small_train": Training("hvae, small", 32, "torch_hvae"),
    "nvae_train": Training("nvae", 16, memory=("store", "remat")),
}
PARTS = (*TRAINING, "bound")
COLUMNS = {
    "images / s": "examples whose bound is evaluated in a second",
    "x 1": "times the speed of one draw at a time, paired by turn",
    "temp MB": "temporary memory of the compiled evaluation",
    "first s": "seconds of the first call: tracing, compiling, evaluating",
}


class Sizes(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...] = PARTS
    rounds: int = 5
    steps: int = 20
    rows: int = 100  # of the bound
    samples: int = 5000  # of the bound


QUICK = Sizes(parts=("bound",), rounds=1, steps=1, rows=2, samples=4)


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures the parts; prints each table as soon as it is there and returns all figures.

    Raises:
      UserError: a part that does not exist.
    """
    if unknown := set(sizes.parts) - set(PARTS):
        raise UserError(f"parts {', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    result = {"hardware": core_suite.machine(), "load_before": os.getloadavg(), "sizes": sizes._asdict()}
    print(f"{result['hardware']}, load {result['load_before'][0]:.1f}")
    result["training"] = [row for name in TRAINING if name in sizes.parts for row in training(sizes, name, peer_python)]
    result["bound"] = bound(sizes) if "bound" in sizes.parts else []
    rows = result["training"] + result["bound"]
    result["versions"] = {name: version for row in rows for name, version in row["versions"].items()}
    result["load_after"] = os.getloadavg()
    print("\n" + ", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"load at the end {result['load_after'][0]:.1f}: wall times of a busy machine are upper bounds")
    return result


def training(sizes: Sizes, name: str, peer_python: str) -> list[dict]:
    """Our train step beside the same model under PyTorch, or in each memory mode, with their table on stdout."""
    work = TRAINING[name]
    system = SYSTEMS[work.system]
    arguments = {"task": "train", "rows": work.rows}
    if work.memory:
        modes = {f"memory={mode}": {"memory": mode} for mode in work.memory}
    else:
        modes = {"genflow": {"samples": work.samples}}
    systems = {label: system | {"model": system["model"] | options} for label, options in modes.items()}
    ours = [_contestant(label, arguments | {"system": chosen}) for label, chosen in systems.items()]
    networks = PEERS[work.peer](systems["genflow"]) if work.peer else []
    return beside_torch(name, ours, work.peer, arguments, networks, sizes, peer_python)


def bound(sizes: Sizes) -> list[dict]:
    """The bound of many draws, with several numbers of them in memory; the table goes to stdout."""
    arguments = {"task": "bound", "system": SYSTEMS["vae"], "rows": sizes.rows, "samples": sizes.samples}
    contestants = [_contestant(f"{n} at once", arguments | {"per_call": n}) for n in PER_CALL]
    scores = take_turns(contestants, sizes.rounds, 1)
    found = [
        dict(
            zip(
                COLUMNS,
                (
                    sizes.rows / score.median,
                    1 / score.ratio(scores[0]),
                    score.facts["temporary_bytes"] / 1e6,
                    score.facts["first_call"][0],
                ),
                strict=True,
            )
        )
        for score in scores
    ]
    print(f"\nbound: {sizes.samples} draws for each of {sizes.rows} examples; {sizes.rounds} turns")
    cells = [[score.name, *row.values()] for score, row in zip(scores, found, strict=True)]
    print(table(["draws", *COLUMNS], cells), flush=True)
    return [
        {"work": "bound", "contestant": score.name} | row | facts_of(score)
        for score, row in zip(scores, found, strict=True)
    ]


def _contestant(name, arguments):
    return Contestant(name, [sys.executable, "-m", "genflow.benchmark.latents", json.dumps(arguments)], ENVIRONMENT)


def _torch_vae(system):
    sizes = {name: system["model"][name] for name in ("latent_dims", "widths", "samples")}
    return [("torch", {"dims": 784} | sizes)]


def _torch_hvae(system):
    names = ("width", "kernels", "strides", "latents", "num_dense", "blocks")
    network = {"side": 28} | {name: system["model"][name] for name in names}
    return [(f"torch{', channels last' * last}", network | {"channels_last": last}) for last in (False, True)]


PEERS = {"torch_vae": _torch_vae, "torch_hvae": _torch_hvae}
