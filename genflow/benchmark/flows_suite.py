"""The suite of flows: Glow's train step and memory, masked autoregressive and spline flows beside peers, numerics."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

from genflow.benchmark import core_suite
from genflow.benchmark.core_suite import ENVIRONMENT, ROOT
from genflow.benchmark.tables import table
from genflow.benchmark.turns import Contestant, Score, take_turns
from genflow.errors import UserError

PEERS = ("flowjax", "zuko", "nflows", "normflows")
OURS = "genflow"
COLUMNS = core_suite.COLUMNS | {"CPU / peer": "CPU time over that of the peer that needs least, paired by turn"}
ABSENT = "import importlib.util as u, json, sys; print(json.dumps([p for p in sys.argv[1:] if not u.find_spec(p)]))"


class Work(NamedTuple):
    """What the contestants of one table do: a task and a flow of `genflow.benchmark.vectors`."""

    title: str
    task: str
    kind: str
    rows: str  # the field of `Sizes` that says how many
    pace: float  # steps in a turn, as a multiple of `Sizes.steps`
    peers: tuple[str, ...] = PEERS
    cores: int = 0  # 0: all


WORKS = {
    "maf_train": Work("MAF train step", "train", "maf", "batch", 5.0),
    "maf_log_prob": Work("MAF log_prob on one core", "log_prob", "maf", "many", 1.0, cores=1),
    "maf_sample": Work("MAF sampling on two cores", "sample", "maf", "many", 0.25, ("flowjax", "zuko"), cores=2),
    "spline_train": Work("Spline coupling train step", "train", "spline", "batch", 5.0),
}
PARTS = ("glow", *WORKS, "numerics")


class Sizes(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...] = PARTS
    depths: tuple[int, ...] = (8, 32)  # of Glow: the last at every width, the others at the first width only
    memory: tuple[str, ...] = ("store", "remat", "invert")
    widths: tuple[int, ...] = (128, 512)
    rounds: int = 5
    steps: int = 4
    glow: core_suite.Sizes = core_suite.Sizes()
    maf: tuple[tuple[str, int], ...] = (("dims", 43), ("depth", 5), ("width", 512))
    spline: tuple[tuple[str, int], ...] = (("dims", 43), ("depth", 8), ("width", 128), ("bins", 8))
    batch: int = 1000
    many: int = 10_000
    numerics: str = "full"  # a key of `genflow.benchmark.numerics.SIZES`


QUICK = Sizes(
    parts=("maf_train", "numerics"),
    depths=(1,),
    memory=("remat",),
    widths=(8,),
    rounds=2,
    steps=1,
    glow=core_suite.QUICK,
    maf=(("dims", 4), ("depth", 2), ("width", 8)),
    spline=(("dims", 4), ("depth", 2), ("width", 8), ("bins", 4)),
    batch=10,
    many=20,
    numerics="quick",
)


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures the parts; prints each table as soon as it is there and returns all figures.

    Raises:
      UserError: a part that does not exist.
    """
    if unknown := set(sizes.parts) - set(PARTS):
        raise UserError(f"parts {', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    absent = missing_peers(peer_python)
    result = {"hardware": core_suite.machine(), "load_before": os.getloadavg(), "peers_left_out": absent}
    result |= {"sizes": sizes._asdict() | {"glow": sizes.glow._asdict()}}
    print(f"{result['hardware']}, load {result['load_before'][0]:.1f}")
    for peer, reason in absent.items():
        print(f"{peer} is left out: {reason}")
    result["glow"] = glow(sizes, "" if "normflows" in absent else peer_python) if "glow" in sizes.parts else []
    result["growth"] = growth(sizes, result["glow"])
    peers = [peer for peer in PEERS if peer not in absent]
    result["works"] = [row for name in WORKS if name in sizes.parts for row in compare(sizes, name, peers, peer_python)]
    result["numerics"] = numerics(sizes) if "numerics" in sizes.parts else []
    return result | _conditions(result["glow"] + result["works"] + result["numerics"])


def _conditions(rows):
    found = {
        "versions": {name: version for row in rows for name, version in row["versions"].items()},
        "load_after": os.getloadavg(),
    }
    print("\n" + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    print("devices: " + "; ".join(dict.fromkeys(row["device"] for row in rows)))
    print(f"load at the end {found['load_after'][0]:.1f}: wall times of a busy machine are upper bounds")
    return found


def missing_peers(python: str) -> dict[str, str]:
    """Peer -> why it cannot take part."""
    if not python:
        return dict.fromkeys(PEERS, "neither --peer_python nor $GENFLOW_PEER_PYTHON names a Python that has it")
    try:
        done = subprocess.run([python, "-c", ABSENT, *PEERS], capture_output=True, text=True)
    except OSError as error:
        return dict.fromkeys(PEERS, f"{python}: {error.strerror}")
    if done.returncode:
        return dict.fromkeys(PEERS, f"{python}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return {peer: f"{python} does not have it" for peer in json.loads(done.stdout)}


def glow(sizes: Sizes, peer_python: str) -> list[dict]:
    """The core suite's tables at every width; the peer takes part at the last depth."""
    rows = []
    for width in sizes.widths:
        for depth in sizes.depths if width == sizes.widths[0] else sizes.depths[-1:]:
            given = {name: getattr(sizes, name) for name in ("memory", "rounds", "steps")}
            found = core_suite.glow(
                sizes.glow._replace(width=width, **given), depth, peer_python if depth == sizes.depths[-1] else ""
            )
            rows += [{"width": width} | row for row in found]
    return rows


def growth(sizes: Sizes, rows: list[dict]) -> list[dict]:
    """How memory and the first call of our steps grow from the first depth to the last, at the first width."""
    rows = [row for row in rows if row["width"] == sizes.widths[0] and row["temp MB"] is not None]
    shallow, deep = ({r["contestant"]: r for r in rows if r["K"] == k} for k in (sizes.depths[0], sizes.depths[-1]))
    found = [
        {"contestant": name} | _growth(shallow[name], deep[name])
        for name in shallow
        if shallow[name]["K"] < deep[name]["K"]
    ]
    if found:
        ends = f"from K={sizes.depths[0]} to K={sizes.depths[-1]}"
        print(f"\nGrowth {ends}, width {sizes.widths[0]}; MB: temporary memory beyond one copy of the parameters")
        print(table(list(found[0]), [list(row.values()) for row in found]), flush=True)
    return found


def _growth(shallow, deep):
    before, after = (row["temp MB"] - row["parameter_bytes"] / 1e6 for row in (shallow, deep))
    return {
        "MB before": before,
        "MB after": after,
        "MB ratio": after / before,
        "first s before": shallow["first s"],
        "first s after": deep["first s"],
        "first s ratio": deep["first s"] / shallow["first s"],
        "first CPU s ratio": deep["CPU s"] / shallow["CPU s"],
    }


def compare(sizes: Sizes, name: str, peers: list[str], peer_python: str) -> list[dict]:
    """The contestants of one work, with their table on stdout."""
    work, flow = WORKS[name], dict(getattr(sizes, WORKS[name].kind))
    arguments = {"task": work.task, "rows": getattr(sizes, work.rows), "flow": {"kind": work.kind} | flow}
    steps = max(1, round(work.pace * sizes.steps))
    scores = take_turns(contestants(work, arguments, peers, peer_python), sizes.rounds, steps)
    rivals = [score for score in scores if score.name != OURS]
    rows = [figures(score, rivals) for score in scores]
    shape = ", ".join(f"{field} {value}" for field, value in flow.items())
    print(f"\n{work.title}: {arguments['rows']} rows, {shape}; {sizes.rounds} turns of {steps}")
    cells = [[score.name, *row.values()] for score, row in zip(scores, rows, strict=True)]
    print(table(["contestant", *COLUMNS], cells), flush=True)
    return [
        {"work": name, "contestant": score.name, **row, "turns": score.wall, "CPU turns": score.cpu}
        | {"over": {rival.name: score.ratio(rival) for rival in rivals}}
        | {fact: score.facts[fact] for fact in ("parameter_bytes", "versions", "device")}
        for score, row in zip(scores, rows, strict=True)
    ]


def figures(score: Score, rivals: list[Score]) -> dict[str, float | None]:
    """A row of the table, in the units of `COLUMNS`."""
    fastest = min(rivals, key=lambda rival: rival.median, default=None)
    thriftiest = min(rivals, key=lambda rival: rival.cpu_median, default=None)
    return core_suite.figures(score, fastest) | {"CPU / peer": thriftiest and score.ratio(thriftiest, "cpu")}


def contestants(work: Work, arguments: dict, peers: list[str], peer_python: str) -> list[Contestant]:
    """We, then the peers that do this work."""
    folder = ROOT / "scripts" / "peers"

    def contestant(name, python, program, extra):
        command = [
            python,
            "-m",
            "genflow.benchmark.pinned",
            str(work.cores),
            str(program),
            json.dumps(arguments | extra),
        ]
        return Contestant(name, command, ENVIRONMENT)

    ours = contestant(OURS, sys.executable, "genflow.benchmark.vectors", {})
    rivals = [
        contestant(peer, peer_python, folder / "flowjax_flows.py", {})
        if peer == "flowjax"
        else contestant(peer, peer_python, folder / "torch_flows.py", {"peer": peer})
        for peer in peers
        if peer in work.peers
    ]
    return [ours, *rivals]


def numerics(sizes: Sizes) -> list[dict]:
    """The figures of `genflow.benchmark.numerics`, with their table on stdout."""
    command = [sys.executable, "-m", "genflow.benchmark.numerics", sizes.numerics]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads(done.stdout)
    rows = facts.pop("rows")
    print("\nNumerics in float32")
    print(table(list(rows[0]), [[row["quantity"], _brief(row["figure"])] for row in rows]), flush=True)
    return [row | facts for row in rows]


def _brief(figure):
    return str(int(figure)) if figure.is_integer() and abs(figure) < 1e9 else f"{figure:.1e}"
