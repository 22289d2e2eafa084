"""The suite of diffusion models: a small U-Net's train step and its sampling loop beside diffusers under PyTorch."""

import json
import sys
from typing import NamedTuple

from genflow.benchmark.autoregressive_suite import beside_torch
from genflow.benchmark.core_suite import ENVIRONMENT
from genflow.benchmark.parts import run_parts
from genflow.benchmark.turns import Contestant

UNET = {"width": 32, "multipliers": (1, 2, 4), "blocks": 2, "attention": (16,)}  # 3,692,867 parameters
SYSTEM = {"shape": (32, 32, 3), "bins": 256, "model": {"name": "ddpm", "dropout": 0.0} | UNET}
PARTS = ("unet_train", "unet_sample")


class Sizes(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...] = PARTS
    rounds: int = 5
    steps: int = 4  # train steps in a turn; one sampling loop is a turn
    rows: int = 16  # images of a train step
    drawn: int = 8  # images of a sampling loop
    num_steps: int = 100  # network calls of a sampling loop
    system: dict = SYSTEM


TINY = {"width": 4, "multipliers": (1, 1), "blocks": 1, "attention": ()}
QUICK = Sizes(("unet_sample",), 1, 1, 2, 2, 3, SYSTEM | {"shape": (4, 4, 3), "model": SYSTEM["model"] | TINY})


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures the parts; prints each table as soon as it is there and returns all figures.

    Raises:
      UserError: a part that does not exist.
    """
    return run_parts(sizes, PARTS, measured, peer_python)


def measured(sizes: Sizes, name: str, peer_python: str) -> list[dict]:
    """Ours beside torch in both memory layouts, with their table on stdout."""
    if name == "unet_sample":
        arguments = {"task": "sample", "rows": sizes.drawn, "num_steps": sizes.num_steps}
        sizes, what = sizes._replace(steps=1), f"{sizes.num_steps} ancestral steps"
    else:
        arguments, what = {"task": "train", "rows": sizes.rows}, "train step"
    command = [sys.executable, "-m", "genflow.benchmark.diffusion", json.dumps(arguments | {"system": sizes.system})]
    ours = [Contestant("genflow", command, ENVIRONMENT)]
    return beside_torch(
        name, ours, "torch_unet", arguments, networks(sizes.system), sizes, peer_python, what, "diffusers"
    )


def networks(system: dict) -> list[tuple[str, dict]]:
    """Torch's contestants and their networks: it is faster in one memory layout or in the other."""
    side, _, channels = system["shape"]
    network = {"side": side, "channels": channels} | {name: system["model"][name] for name in UNET}
    return [(f"torch{', channels last' * last}", network | {"channels_last": last}) for last in (False, True)]
