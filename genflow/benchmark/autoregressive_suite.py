"""The suite of autoregressive models: how much the cached samplers save, and train steps beside PyTorch."""

import json
import os
import sys
from typing import NamedTuple

from genflow.benchmark import core_suite
from genflow.benchmark.core_suite import ENVIRONMENT, ROOT
from genflow.benchmark.tables import table
from genflow.benchmark.turns import Contestant, Score, take_turns
from genflow.errors import UserError

# What `genflow.benchmark.sites` builds; sites: how many are drawn one after another.
SYSTEMS = {
    "gated_pixelcnn": {
        "sites": 784,
        "system": {
            "shape": (28, 28, 1),
            "bins": 2,
            "model": {"name": "gated_pixelcnn", "width": 32, "blocks": 7, "head": 64},
        },
    },
    "pixelcnnpp": {
        "sites": 1024,
        "system": {
            "shape": (32, 32, 3),
            "bins": 256,
            "model": {"name": "pixelcnnpp", "width": 32, "stages": 3, "blocks": 2, "components": 10, "dropout": 0.0},
        },
    },
    "wavenet": {
        "sites": 8000,
        "system": {"shape": (8000,), "bins": 256, "model": {"name": "wavenet", "width": 32, "skip_width": 64}},
    },
    "gpt": {
        "sites": 512,
        "system": {"shape": (512,), "bins": 65, "model": {"name": "gpt", "width": 128, "layers": 4, "heads": 4}},
    },
    "gated_pixelcnn, color": {
        "sites": 3072,
        "system": {
            "shape": (32, 32, 3),
            "bins": 256,
            "model": {"name": "gated_pixelcnn", "width": 33, "blocks": 7, "head": 66},
        },
    },
    "gpt, small": {
        "sites": 64,
        "system": {"shape": (64,), "bins": 65, "model": {"name": "gpt", "width": 128, "layers": 4, "heads": 4}},
    },
    "gpt, large": {
        "sites": 256,
        "system": {"shape": (256,), "bins": 65, "model": {"name": "gpt", "width": 384, "layers": 6, "heads": 6}},
    },
}
COLUMNS = {
    "ms / site": "milliseconds for one site of all examples, median",
    "all sites s": "seconds for every site of the examples at that pace",
    "x naive": "naive's time a site over this one's, paired by turn",
    "same": "the sites that naive drew, the first ones, are the same here",
    "temp MB": "temporary memory of the compiled sampler, caches and all",
    "first s": "seconds of the first call: tracing, compiling, drawing",
}


class Work(NamedTuple):
    """One table of samplers."""

    system: str
    rows: int  # examples drawn at once
    naive_sites: int  # of each example, drawn by naive: its time a site is the same at all of them


class Training(NamedTuple):
    """One table of train steps."""

    system: str
    rows: int
    peer: str  # the file of scripts/peers


WORKS = {
    "gated_pixelcnn": Work("gated_pixelcnn", 16, 784),
    "pixelcnnpp": Work("pixelcnnpp", 16, 8),
    "wavenet": Work("wavenet", 1, 16),
    "gpt": Work("gpt", 1, 64),
}
TRAINING = {
    "gated_pixelcnn_train": Training("gated_pixelcnn", 16, "torch_pixelcnn"),
    "gated_pixelcnn_color_train": Training("gated_pixelcnn, color", 16, "torch_pixelcnn"),
    "gpt_small_train": Training("gpt, small", 12, "torch_gpt"),
    "gpt_large_train": Training("gpt, large", 4, "torch_gpt"),
}
PARTS = (*WORKS, *TRAINING)


class Sizes(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...] = PARTS
    rounds: int = 3
    steps: int = 3
    rows: int = 0  # examples of every work; 0: as the work says
    naive_sites: int = 0  # at most; 0: as the work says


QUICK = Sizes(parts=("gated_pixelcnn",), rounds=1, steps=1, rows=1, naive_sites=2)


def run(sizes: Sizes, peer_python: str) -> dict:
    """Measures the parts; prints each table as soon as it is there and returns all figures.

    Raises:
      UserError: a part that does not exist.
    """
    if unknown := set(sizes.parts) - set(PARTS):
        raise UserError(f"parts {', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    result = {"hardware": core_suite.machine(), "load_before": os.getloadavg(), "sizes": sizes._asdict()}
    print(f"{result['hardware']}, load {result['load_before'][0]:.1f}")
    result["sampling"] = [row for name in WORKS if name in sizes.parts for row in sampling(sizes, name)]
    result["training"] = [row for name in TRAINING if name in sizes.parts for row in training(sizes, name, peer_python)]
    rows = result["sampling"] + result["training"]
    result["versions"] = {name: version for row in rows for name, version in row["versions"].items()}
    result["load_after"] = os.getloadavg()
    print("\n" + ", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"load at the end {result['load_after'][0]:.1f}: wall times of a busy machine are upper bounds")
    return result


def sampling(sizes: Sizes, name: str) -> list[dict]:
    """The samplers of one work, with their table on stdout."""
    work = WORKS[name]
    rows, total = sizes.rows or work.rows, SYSTEMS[work.system]["sites"]
    naive = min(sizes.naive_sites or total, work.naive_sites)
    drawn = {"naive": naive, "cached": total, "cached, first half": total // 2}
    scores = take_turns(
        [_sampler(work, method, rows, num, min(naive, num)) for method, num in drawn.items()], sizes.rounds, sizes.steps
    )
    found = [_sampling_figures(score, scores[0], drawn, total) for score in scores]
    print(f"\n{name}: {rows} examples of {total} sites, naive draws {naive}; {sizes.rounds} turns of {sizes.steps}")
    cells = [[score.name, *row.values()] for score, row in zip(scores, found, strict=True)]
    print(table(["sampler", *COLUMNS], cells), flush=True)
    return [
        {"work": name, "contestant": score.name, "rows": rows, "sites": drawn[score.name]} | row | facts_of(score)
        for score, row in zip(scores, found, strict=True)
    ]


def _sampler(work, method, rows, num_sites, compared):
    arguments = {"task": "sample", "method": method.partition(",")[0], "num_sites": num_sites, "compared": compared}
    return _contestant(method, SYSTEMS[work.system]["system"], arguments | {"rows": rows})


def _contestant(name, system, arguments):
    command = [sys.executable, "-m", "genflow.benchmark.sites", json.dumps(arguments | {"system": system})]
    return Contestant(name, command, ENVIRONMENT)


def _sampling_figures(score, naive, drawn, total):
    pace = score.median / drawn[score.name]
    # a turn of naive draws fewer sites
    speed = drawn[score.name] / drawn["naive"] / score.ratio(naive)
    is_same = score.facts["digest"] == naive.facts["digest"]
    values = (
        1e3 * pace,
        pace * total,
        speed,
        "yes" if is_same else "no" if drawn[score.name] >= drawn["naive"] else None,
        score.facts["temporary_bytes"] / 1e6,
        score.facts["first_call"][0],
    )
    return dict(zip(COLUMNS, values, strict=True))


def facts_of(score: Score) -> dict:
    """What both tables say of a contestant beside its figures."""
    facts = {fact: score.facts[fact] for fact in ("parameter_bytes", "versions", "device")}
    return facts | {"turns": score.wall, "CPU turns": score.cpu}


def training(sizes: Sizes, name: str, peer_python: str) -> list[dict]:
    """Our train step beside the same network under PyTorch, with their table on stdout."""
    work = TRAINING[name]
    system = SYSTEMS[work.system]["system"]
    arguments = {"task": "train", "rows": sizes.rows or work.rows}
    return beside_torch(
        name,
        [_contestant("genflow", system, arguments)],
        work.peer,
        arguments,
        PEERS[work.peer](system),
        sizes,
        peer_python,
    )


def beside_torch(
    name: str,
    ours: list[Contestant],
    peer: str,
    arguments: dict,
    networks: list,
    sizes: NamedTuple,
    peer_python: str,
    what: str = "train step",
    package: str = "torch",
) -> list[dict]:
    """Train steps, or what else, of ours and of a program of scripts/peers, with their table on stdout.

    Args:
      networks: (name, network) of each of the peer's contestants.
      package: what the peer needs.
    """
    contestants = list(ours)
    absent = core_suite.missing_peer(peer_python, package) if networks else ""
    if absent:
        print(f"{package} is left out: {absent}")
    program = str(ROOT / "scripts" / "peers" / f"{peer}.py")
    for label, network in [] if absent else networks:
        command = [peer_python, program, json.dumps(arguments | {"network": network})]
        contestants.append(Contestant(label, command, ENVIRONMENT))
    scores = take_turns(contestants, sizes.rounds, sizes.steps)
    fastest = min(scores[len(ours) :], key=lambda score: score.median, default=None)
    found = [core_suite.figures(score, fastest) for score in scores]
    print(f"\n{name}: {what} of {arguments['rows']} examples; {sizes.rounds} turns of {sizes.steps}")
    cells = [[score.name, *row.values()] for score, row in zip(scores, found, strict=True)]
    print(table(["contestant", *core_suite.COLUMNS], cells), flush=True)
    return [
        {"work": name, "contestant": score.name} | row | facts_of(score)
        for score, row in zip(scores, found, strict=True)
    ]


def _torch_pixelcnn(system):
    """Torch's contestants and their networks: it is faster in one memory layout or in the other."""
    side, _, channels = system["shape"]
    sizes = {name: size for name, size in system["model"].items() if name != "name"}
    network = {"side": side, "channels": channels, "bins": system["bins"]} | sizes
    return [(f"torch{', channels last' * last}", network | {"channels_last": last}) for last in (False, True)]


def _torch_gpt(system):
    sizes = {name: size for name, size in system["model"].items() if name != "name"}
    return [("torch", {"bins": system["bins"], "length": system["shape"][0]} | sizes)]


PEERS = {"torch_pixelcnn": _torch_pixelcnn, "torch_gpt": _torch_gpt}
