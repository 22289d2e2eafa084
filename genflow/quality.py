"""Samplers of one diffusion run compared: distances of their samples to the data against network calls for a sample."""

import datetime
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from genflow import provenance
from genflow import workdir as folders
from genflow.analysis.distances import classifier_features, frechet, sliced_wasserstein
from genflow.checkpoint import digest
from genflow.errors import UserError
from genflow.evaluate import nonfinite
from genflow.experiment import Experiment
from genflow.hosts import to_host
from genflow.report.samplers import quality
from genflow.samplers.diffusion import SAMPLERS
from genflow.trained import Trained, load_trained

BATCH = 500  # samples drawn at once


class Judge(NamedTuple):
    """What samples are compared with: training data, and features of a classifier that saw them."""

    data: np.ndarray
    features: object  # of events, or None without labels
    data_features: np.ndarray | None
    accuracy: float | None  # of the classifier, on the test part

    def distances(self, x: np.ndarray) -> dict[str, float]:
        """Of a set of events to the training data."""
        found = {"sliced_wasserstein": sliced_wasserstein(x, self.data)}
        if self.features is not None:
            found["frechet"] = frechet(self.features(x), self.data_features)
        return found


def compare_samplers(
    workdir: str,
    samplers: Sequence[str],
    calls: Sequence[int],
    num: int = 2000,
    seed: int = 0,
    defaults: Mapping | None = None,
) -> dict:
    """Draws `num` samples by each sampler with each number of calls; prints a table, writes samplers.json and .png.

    Args:
      samplers: 'NAME' or 'NAME:SPACING', see `samplers.diffusion`.
      calls: how often the network may be asked for a sample.
      defaults: see `load_trained`.

    Raises:
      UserError: not a diffusion run, or a sampler that does not exist.
    """
    path = pathlib.Path(workdir).expanduser().resolve()
    chosen = [_chosen(text) for text in samplers]
    if num < 2 or min(calls) < 2:
        raise UserError(f"--num={num} and --calls={','.join(map(str, calls))}: expected 2 or more")
    trained = load_trained(path, defaults)
    _check(trained.experiment)
    judge, floor = _judge(trained.experiment, num, seed)
    rows = []
    for label, options in chosen:
        for budget in calls:
            rows.append(_row(trained, judge, label, options, budget, num, seed))
            print(_line(rows[-1]), flush=True)
    record = _record(trained, path, rows, judge, floor, num, seed)
    folders.write_text(path / "samplers.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    axes = {"sliced_wasserstein": "sliced Wasserstein distance", "frechet": f"Fréchet distance ({record['features']})"}
    shown = {name: label for name, label in axes.items() if name in floor}
    quality([r for r in rows if not r["nonfinite"]], shown, floor, str(path / "samplers.png"), record["title"])
    print(*(f"  {name} of the test data: {value:.4f}" for name, value in floor.items()), sep="\n")
    print(*(f"written to  {path / 'samplers'}{end}" for end in (".json", ".png")), sep="\n")
    return record


def _chosen(text):
    name, _, spacing = text.partition(":")
    if name not in SAMPLERS:
        raise UserError(f"--samplers={name}: expected some of {', '.join(SAMPLERS)}")
    return text, {"sampler": name} | ({"spacing": spacing} if spacing else {})


def _check(experiment):
    if experiment.model.diffusion is None:
        raise UserError(f"{experiment.config.model.name} has no samplers to choose from: train a diffusion model")


def _judge(experiment: Experiment, num: int, seed: int):
    """What to compare with, and the distances of as many test examples as there are, up to `num`."""
    train = experiment.train.fetch(np.arange(experiment.train.num))
    test = experiment.evaluation["test"].fetch(np.arange(min(experiment.evaluation["test"].num, num)))
    features, accuracy = None, None
    if "label" in train:
        features, score = classifier_features(train["x"], train["label"], seed)
        accuracy = score(test["x"], test["label"])
    judge = Judge(train["x"], features, features and features(train["x"]), accuracy)
    return judge, judge.distances(test["x"])


def _row(trained, judge, label, options, budget, num, seed):
    per_step = SAMPLERS[options["sampler"]]().calls
    steps = max((budget - 1) // per_step, 1) + 1
    size = min(BATCH, num)
    diffusion, started = trained.experiment.model.diffusion, time.perf_counter()
    draw = jax.jit(lambda p, s, key: diffusion.draw(p, s, key, size, num_steps=steps, **options))
    keys = jax.random.split(jax.random.key(seed), -(-num // size))
    x = np.concatenate([to_host(draw(trained.params, trained.state, key)) for key in keys])[:num]
    broken = nonfinite(x)
    distances = {} if broken else judge.distances(x)
    row = {"sampler": label, "calls": (steps - 1) * per_step + 1, "steps": steps, "nonfinite": broken}
    return row | distances | {"seconds": round(time.perf_counter() - started, 2)}


def _line(row):
    name = f"  {row['sampler']:<28}{row['calls']:>5} calls"
    if row["nonfinite"]:
        return f"{name}  {row['nonfinite']} samples are not finite"
    figures = "".join(f"  {name} {row[name]:9.4f}" for name in ("sliced_wasserstein", "frechet") if name in row)
    return f"{name}{figures}  {row['seconds']:6.1f} s with compilation"


def _record(trained: Trained, path, rows, judge, floor, num, seed):
    config, spec = trained.experiment.config, trained.experiment.spec
    return {
        "name": config.name,
        "run": path.name,
        "title": f"{config.name}, {num:,} samples against the {len(judge.data):,} training examples",
        "command": shlex.join(["python", *sys.argv]),
        "config_hash": folders.config_hash(config),
        "data": spec.name,
        "split": "train",
        "num_samples": num,
        "features": f"frechet_{spec.name}",
        "classifier_accuracy": judge.accuracy,
        "test_data": floor,
        "rows": rows,
        "seed": seed,
        "best_step": trained.step,
        "params_sha256": digest(trained.params),
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
