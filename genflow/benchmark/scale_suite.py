"""The suite of scale: what devices send each other in a step, whether the input keeps up, and when training begins."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from genflow.benchmark import startup
from genflow.benchmark.core_suite import ENVIRONMENT
from genflow.benchmark.parts import run_parts
from genflow.benchmark.tables import table
from genflow.benchmark.turns import Contestant, Score, take_turns
from genflow.collectives import KINDS, Collective, wire_bytes
from genflow.errors import UserError


class Work(NamedTuple):
    """A train step whose collectives are counted."""

    config: str
    rows: int = 16  # examples on each device
    model: int = 1  # devices along the parameter axis; 0: all
    rules: str = "()"  # sharding.rules


KERNELS, LARGEST = "(('kernel', ('', 'model')),)", "(('.', ('largest',)),)"
WORKS = {
    "glow_digits": Work("configs/glow_digits.py"),
    "vae_digits": Work("configs/vae_digits.py"),
    "ddpm_digits": Work("configs/ddpm_digits.py", 8),
    "vae_digits, kernels cut in 2": Work("configs/vae_digits.py", model=2, rules=KERNELS),
    "glow_digits, all cut in 2": Work("configs/glow_digits.py", model=2, rules=LARGEST),
    "vae_digits, all cut": Work("configs/vae_digits.py", model=0, rules=LARGEST),
    "ddpm_digits, all cut": Work("configs/ddpm_digits.py", 8, model=0, rules=LARGEST),
}
# A step of 5 to 11 ms on two cores, by how busy they are, on images of CIFAR's size.
FED = {
    "data.name": "synthetic:32x32x3",
    "data.num_examples": "8192",
    "data.batch_size": "128",
    "model.widths": "(16,)",
    "model.likelihood": "gaussian",
    "model.std": "1.0",
    "optimizer.learning_rate": "1e-6",
    "train.steps_per_call": "10",
}
PLACEMENTS = ("device", "host", "stream")
GOAL = 5.0  # milliseconds in which a batch must be there
KIND_COLUMNS = {kind: f"{kind.removeprefix('collective-')} kB" for kind in dict.fromkeys(KINDS.values())}
COLLECTIVES = {
    "devices": "of the mesh; each has as many examples in its batch",
    "held kB": "parameters on one device",
    "MFLOP": "of one device's step, with the body of every loop once",
    "ops": "collectives in a step",
    **{column: f"one device sends in a step by {kind}" for kind, column in KIND_COLUMNS.items()},
    "/ ring": "all it sends over 2 (n-1)/n bytes of the gradients, which a ring's all-reduce of them takes",
}
INPUT = {
    "steps / s": "of the train loop",
    "ms": "median milliseconds of a step",
    "CPU ms": "its CPU time, all cores",
    "/ device": "time over that with the data on the device, paired by turn",
    "feed ms": "milliseconds of making one batch and nothing else",
    "feed CPU ms": "its CPU time",
    "batches / s": "what the feed alone makes",
    "/ goal": f"feed ms over {GOAL:.0f} ms: above 1, steps of this length would wait",
}
PARTS = ("collectives", "input", "startup")


class Sizes(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...] = PARTS
    rounds: int = 5  # turns of the feeds
    steps: int = 3  # times `calls` calls in a turn
    calls: int = 4
    devices: tuple[int, ...] = (1, 2, 4, 8)
    works: Mapping[str, Work] = WORKS
    placements: tuple[str, ...] = PLACEMENTS
    fed: Mapping[str, str] = FED
    started: str = "configs/glow_digits.py"
    starts: int = 2  # with a warm cache, after the one that fills it


TINY = FED | {"data.name": "synthetic:4x4x1", "data.num_examples": "64", "data.batch_size": "16", "seed": "1"}
QUICK = Sizes(
    ("collectives",),
    rounds=1,
    steps=1,
    calls=2,
    devices=(2,),
    works={"vae_digits": Work("configs/vae_digits.py:debug", 2)},
    placements=("device", "stream"),
    fed=TINY,
    started="configs/vae_digits.py:debug",
    starts=1,
)


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures the parts; prints each table as soon as it is there and returns all figures.

    Raises:
      UserError: a part that does not exist, or a program that ended early.
    """
    return run_parts(sizes, PARTS, measured, peer_python)


def measured(sizes: Sizes, name: str, peer_python: str) -> list[dict]:
    """One part, with its tables on stdout; there are no peers."""
    return {"collectives": collectives, "input": feeds, "startup": starts}[name](sizes)


def collectives(sizes: Sizes) -> list[dict]:
    """Weak scaling: the same examples on each of 1, 2, ... fake devices."""
    rows = []
    for name, work in sizes.works.items():
        counts = [n for n in sizes.devices if n % (work.model or 1) == 0]
        facts = [_wire(work, n) for n in counts]
        found = [wire_figures(fact) for fact in facts]
        first = facts[0]["parameter_bytes"]
        print(f"\n{name}: {work.rows} examples a device, {first / 1e3:.1f} kB of trainable parameters")
        print(table(COLLECTIVES, [list(row.values()) for row in found]), flush=True)
        rows += [{"work": name} | row | fact for row, fact in zip(found, facts, strict=True)]
    return rows


def _wire(work, devices):
    sharding = {"sharding.model": str(work.model or devices), "sharding.rules": work.rules}
    arguments = {"config": work.config, "rows": work.rows, "overrides": sharding}
    command = [sys.executable, "-m", "genflow.benchmark.wire", json.dumps(arguments)]
    # The machine code is not run. On two cores un-awaited collectives wait for each other for ever without NPROC.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = ENVIRONMENT | {"JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": flags}
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{work.config} on {devices} devices stopped with status {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def wire_figures(facts: dict) -> dict[str, float | None]:
    """A row of the table, in the units of `COLLECTIVES`."""
    found = [Collective(**fields) for fields in facts["collectives"] if fields["group"] > 1]
    sent = {kind: sum(c.count * wire_bytes(c) for c in found if c.kind == kind) for kind in KIND_COLUMNS}
    ring = wire_bytes(Collective("all-reduce", facts["parameter_bytes"], facts["devices"], 1))
    values = (
        facts["devices"],
        facts["parameter_bytes_held"] / 1e3,
        facts["flops"] / 1e6,
        sum(c.count for c in found),
        *(amount / 1e3 for amount in sent.values()),
        sum(sent.values()) / ring if ring else None,
    )
    return dict(zip(COLLECTIVES, values, strict=True))


def feeds(sizes: Sizes) -> list[dict]:
    """Steps with data on the device, from host memory and streamed, and each feed by itself."""
    entrants = [(task, placement) for task in ("train", "feed") for placement in sizes.placements]
    scores = take_turns([_fed(sizes, *entrant) for entrant in entrants], sizes.rounds, sizes.steps)
    training, feeding = scores[: len(sizes.placements)], scores[len(sizes.placements) :]
    found = [feed_figures(*pair, training[0]) for pair in zip(training, feeding, strict=True)]
    shape, batch = sizes.fed["data.name"].partition(":")[2], training[0].facts["batch"]
    print(f"\nInput: batches of {batch} examples {shape}; {sizes.rounds} turns of {sizes.steps}")
    names = sizes.placements
    print(table(["data", *INPUT], [[n, *row.values()] for n, row in zip(names, found, strict=True)]), flush=True)
    return [
        {"data": name, "batch": batch}
        | row
        | {"versions": t.facts["versions"], "device": t.facts["device"]}
        | {"turns": t.wall, "feed turns": f.wall}
        for name, row, t, f in zip(names, found, training, feeding, strict=True)
    ]


def _fed(sizes, task, placement):
    arguments = {"task": task, "placement": placement, "calls": sizes.calls, "overrides": dict(sizes.fed)}
    arguments["config"] = "configs/vae_digits.py"
    command = [sys.executable, "-m", "genflow.benchmark.feeding", json.dumps(arguments)]
    return Contestant(f"{task} {placement}", command, ENVIRONMENT)


def feed_figures(training: Score, feeding: Score, device: Score) -> dict[str, float]:
    """A row of the table, in the units of `INPUT`."""
    step, batch = (1e3 * score.median / score.facts["steps"] for score in (training, feeding))
    busy, cpu = (1e3 * score.cpu_median / score.facts["steps"] for score in (training, feeding))
    values = 1e3 / step, step, busy, training.ratio(device), batch, cpu, 1e3 / batch, batch / GOAL
    return dict(zip(INPUT, values, strict=True))


def starts(sizes: Sizes) -> list[dict]:
    """Seconds from the start of `main.py` to its first train step, with an empty and a warm compilation cache."""
    words = [f"--config={sizes.started}", "--config.train.log_every=1"]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_ENABLE_COMPILATION_CACHE": "1"}
        names = ["empty", *["warm"] * sizes.starts]
        rows = [{"cache": name} | startup.first_step(words, environment) for name in names]
    print(f"\nFrom the start of main.py to the first step of {sizes.started}")
    print(table(list(rows[0]), [list(row.values()) for row in rows]), flush=True)
    return [row | {"config": sizes.started, "versions": startup.versions()} for row in rows]
