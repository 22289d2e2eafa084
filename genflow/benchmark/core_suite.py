"""The core suite: Glow's train step in the three memory modes beside normflows, and convolutions inside a scan."""

import json
import os
import pathlib
import platform
import subprocess
import sys
from typing import NamedTuple

from genflow.benchmark.tables import table
from genflow.benchmark.turns import Contestant, Score, take_turns

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PEER_STEP = ROOT / "scripts" / "peers" / "normflows_step.py"
# No program from an earlier run's cache; on a GPU the contestants share the memory.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
PEERS = {"normflows": False, "normflows, channels_last": True}  # name in the tables -> memory layout
COLUMNS = {
    "ms": "median milliseconds of a step",
    "best": "the fastest step",
    "CPU ms": "median CPU time of a step, all cores",
    "/ peer": "time over the fastest peer's, paired by turn",
    "first s": "seconds of the first call: tracing, compiling, one step",
    "CPU s": "CPU time of the first call",
    "temp MB": "temporary memory of the compiled step",
    "peak MB": "resident memory of the whole process",
}


class Sizes(NamedTuple):
    """What is measured, and how often."""

    depths: tuple[int, ...] = (8, 16, 32)
    memory: tuple[str, ...] = ("store", "remat", "invert")
    width: int = 128
    levels: int = 3
    image: int = 32
    batch: int = 16
    rounds: int = 5
    steps: int = 4
    convs: tuple[tuple[int, int, int, int], ...] = (  # (image side, kernel side, input, output channels)
        (16, 3, 6, 128),  # these three are the coupling network of the first level
        (16, 1, 128, 128),
        (16, 3, 128, 12),
        (32, 3, 32, 32),
        (16, 3, 128, 128),
    )
    conv_seconds: float = 0.3  # for each figure


QUICK = Sizes(
    depths=(1,), width=8, levels=1, image=8, batch=2, rounds=2, steps=1, convs=((4, 3, 18, 2),), conv_seconds=0.0
)


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures everything; prints each table as soon as it is there and returns all figures."""
    absent = missing_peer(peer_python)
    result = {"hardware": machine(), "load_before": os.getloadavg(), "sizes": sizes._asdict(), "peer_left_out": absent}
    print(f"{result['hardware']}, load {result['load_before'][0]:.1f}")
    if absent:
        print(f"normflows under torch is left out: {absent}")
    result["glow"] = [row for depth in sizes.depths for row in glow(sizes, depth, "" if absent else peer_python)]
    result["versions"] = {name: v for row in result["glow"] for name, v in row["versions"].items()}
    result["convs"] = convs(sizes)
    result["load_after"] = os.getloadavg()
    print("\n" + ", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print("devices: " + "; ".join(dict.fromkeys(row["device"] for row in result["glow"])))
    print(f"load at the end {result['load_after'][0]:.1f}: wall times of a busy machine are upper bounds")
    return result


def missing_peer(python: str, package: str = "normflows") -> str:
    """Why the peer cannot take part; '' if it can."""
    if not python:
        return "neither --peer_python nor $GENFLOW_PEER_PYTHON names a Python that has it"
    try:
        done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True)
    except OSError as error:
        return f"{python}: {error.strerror}"
    return "" if done.returncode == 0 else f"{python}: {done.stderr.strip().splitlines()[-1]}"


def machine() -> str:
    """'Linux x86_64, 2 cores of AMD EPYC'."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {cores} cores of {_processor()}"


def _processor():
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def glow(sizes: Sizes, depth: int, peer_python: str) -> list[dict]:
    """The contestants of one depth, with their table on stdout."""
    scores = take_turns(contestants(sizes, depth, peer_python), sizes.rounds, sizes.steps)
    rival = min((s for s in scores if s.name in PEERS), key=lambda s: s.median, default=None)
    rows = [figures(score, rival) for score in scores]
    shape = (
        f"{sizes.levels} levels of K={depth}, width {sizes.width}, {sizes.batch} images {sizes.image}x{sizes.image}x3"
    )
    print(f"\nGlow train step: {shape}; {sizes.rounds} turns of {sizes.steps} steps")
    cells = [[score.name, *row.values()] for score, row in zip(scores, rows, strict=True)]
    print(table(["contestant", *COLUMNS], cells), flush=True)
    return [
        {"K": depth, "contestant": score.name, **row, "turns": score.wall}
        | {name: score.facts[name] for name in ("parameter_bytes", "versions", "device")}
        for score, row in zip(scores, rows, strict=True)
    ]


def figures(score: Score, rival: Score | None) -> dict[str, float | None]:
    """A row of the table, in the units of `COLUMNS`."""
    wall, cpu = score.facts["first_call"]
    temporary = score.facts["temporary_bytes"]
    values = (
        1e3 * score.median,
        1e3 * min(second for turn in score.wall for second in turn),
        1e3 * score.cpu_median,
        rival and score.ratio(rival),
        wall,
        cpu,
        temporary and temporary / 1e6,
        score.peak_bytes / 1e6,
    )
    return dict(zip(COLUMNS, values, strict=True))


def contestants(sizes: Sizes, depth: int, peer_python: str) -> list[Contestant]:
    """Our memory modes, then the peer in two memory layouts unless its interpreter is ''."""
    common = {"depth": depth} | {name: getattr(sizes, name) for name in ("levels", "width", "image", "batch")}
    ours = [
        Contestant(f"memory={memory}", _command(sys.executable, "glow_step", common | {"memory": memory}), ENVIRONMENT)
        for memory in sizes.memory
    ]
    peers = [
        Contestant(name, [peer_python, str(PEER_STEP), json.dumps(common | {"channels_last": last})], ENVIRONMENT)
        for name, last in PEERS.items()
        if peer_python
    ]
    return ours + peers


def _command(python, module, arguments):
    return [python, "-m", f"genflow.benchmark.{module}", json.dumps(arguments)]


def convs(sizes: Sizes) -> list[dict]:
    """GFLOP/s of convolutions at the top level and in a scan, with their table on stdout."""
    arguments = {"batch": sizes.batch, "shapes": sizes.convs, "seconds": sizes.conv_seconds}
    command = _command(sys.executable, "convs", arguments)
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(done.stdout)
    print(f"\nConvolutions of {sizes.batch} images, GFLOP/s")
    print(table(list(rows[0]), [list(row.values()) for row in rows]), flush=True)
    return rows
