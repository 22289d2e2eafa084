"""Samplers of one diffusion run compared: distances of their samples to the data against network calls for a sample."""

import datetime
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import numpy as np

from genflow import provenance
from genflow import workdir as folders
from genflow.analysis.distances import frechet, sliced_wasserstein
from genflow.analysis.judge import Judge, chosen_examples, make_judge
from genflow.checkpoint import digest
from genflow.errors import UserError
from genflow.evaluate import nonfinite
from genflow.hosts import to_host
from genflow.report.samplers import quality
from genflow.rows import rows_beside
from genflow.samplers.diffusion import SAMPLERS, SPACINGS
from genflow.trained import Trained, load_trained

BATCH = 500  # samples drawn at once


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
    if num < 2 or min(calls) < 2 or seed < 0:
        given = f"--num={num}, --calls={','.join(map(str, calls))} and --seed={seed}"
        raise UserError(f"{given}: expected 2 or more of the first two, and a seed that is not negative")
    trained = load_trained(path, defaults)
    plan = _plan(trained, chosen, calls)
    test = trained.experiment.evaluation["test"]
    examples = chosen_examples(test, num)["x"]
    judge = make_judge(trained.experiment, len(examples))
    floor = _distances(judge, examples)
    rows = []
    for label, options, steps in plan:
        rows.append(_row(trained, judge, label, options, steps, num, seed))
        print(_line(rows[-1]), flush=True)
    record = _record(trained, path, rows, judge, floor, num, seed)
    folders.write_text(path / "samplers.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    axes = {"sliced_wasserstein": "sliced Wasserstein distance", "frechet": f"Fréchet distance ({record['features']})"}
    shown = {name: label for name, label in axes.items() if name in floor}
    drawn = [row for row in rows if not row["nonfinite"]]
    tested = f"{record['num_test']:,} test examples"
    quality(drawn, shown, floor, str(path / "samplers.png"), record["title"], tested)
    print(*(f"  {name} of {tested}: {value:.4f}" for name, value in floor.items()), sep="\n")
    print(*(f"written to  {path / 'samplers'}{end}" for end in (".json", ".png")), sep="\n")
    return record


def _chosen(text):
    name, _, spacing = text.partition(":")
    if name not in SAMPLERS:
        raise UserError(f"--samplers={name}: expected some of {', '.join(SAMPLERS)}")
    if spacing and spacing not in SPACINGS:
        raise UserError(f"--samplers={text}: expected a spacing of {', '.join(SPACINGS)} after the colon")
    return text, {"sampler": name} | ({"spacing": spacing} if spacing else {})


def _plan(trained, chosen, calls):
    """(label, options, number of times) of every row: what the model can draw, and each once.

    Raises:
      UserError: there is nothing to draw.
    """
    diffusion = trained.experiment.model.diffusion
    if diffusion is None:
        name = trained.experiment.config.model.name
        raise UserError(f"{name} has no samplers to choose from: train a diffusion model")
    plan = {}
    for label, options in chosen:
        per_step = SAMPLERS[options["sampler"]]().calls
        for steps in sorted({max((budget - 1) // per_step, 1) + 1 for budget in calls}):
            try:
                draw = partial(diffusion.draw, num=2, num_steps=steps, **options)
                jax.eval_shape(lambda p, s, draw=draw: draw(p, s, jax.random.key(0)), trained.params, trained.state)
            except ValueError as error:
                print(f"  {label}, {steps} times: left out: {error}")
            else:
                plan[label, steps] = options
    if not plan:
        raise UserError("nothing is left to compare")
    return [(label, options, steps) for (label, steps), options in plan.items()]


def _distances(judge: Judge, x: np.ndarray) -> dict[str, float]:
    """Of a set of events to the training data."""
    found = {"sliced_wasserstein": sliced_wasserstein(x, judge.data)}
    if judge.extractor is not None:
        found["frechet"] = frechet(judge.extractor.describe(x).features, judge.described.features)
    return found


def _row(trained, judge, label, options, steps, num, seed):
    per_step = SAMPLERS[options["sampler"]]().calls
    size = min(BATCH, num)
    diffusion, started = trained.experiment.model.diffusion, time.perf_counter()
    draw = jax.jit(
        lambda p, s, key: diffusion.draw(p, s, key, size, num_steps=steps, **options),
        out_shardings=rows_beside(trained.params, size),
    )
    keys = jax.random.split(jax.random.key(seed), -(-num // size))
    x = np.concatenate([to_host(draw(trained.params, trained.state, key)) for key in keys])[:num]
    broken = nonfinite(x)
    distances = {} if broken else _distances(judge, x)
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
        "features": judge.extractor and f"frechet_{judge.extractor.name}",
        "classifier_accuracy": judge.accuracy,
        "num_train": len(judge.data),
        "num_test": min(trained.experiment.evaluation["test"].num, num),
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
