"""What a sweep has found: a table, results.json, results.csv and a picture."""

import csv
import json
import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from genflow import workdir as folders
from genflow.benchmark.tables import table
from genflow.metrics import read_rows
from genflow.sweep import trial
from genflow.sweep.space import text
from genflow.sweep.study import Study
from genflow.sweep.trial import Plan

RESULTS_JSON, RESULTS_CSV, PICTURE = "results.json", "results.csv", "parallel_coordinates.png"
ORDER = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}  # a figure of a run that was cut short ranks below


def collect(plan: Plan, study: Study) -> dict:
    """What results.json holds: every trial, the best first, and the command of the best."""
    rows = [_row(plan, row) for row in study.trials()]
    sign = 1 if plan.sweep.direction == "minimize" else -1
    rows.sort(key=lambda r: (ORDER[r["state"]], math.inf if r["value"] is None else sign * r["value"], r["number"]))
    names = [trial.metric_name(plan, row["number"]) for row in rows]
    best = rows[0] if rows and rows[0]["state"] == "complete" else None
    return {
        "name": plan.name,
        "metric": next(filter(None, names), plan.sweep.metric or "validation"),
        "split": "validation",
        "direction": plan.sweep.direction,
        "num_trials": plan.sweep.num_trials,
        "best": best,
        "best_command": command_line(plan, best["params"]) if best else "",
        "trials": rows,
    }


def _row(plan, row):
    points = trial.curve(plan, row["number"])
    value = row["value"]
    errors = [
        r.get("standard_error")
        for r in read_rows(plan.run_folder(row["number"]))
        if r["split"] == "validation" and value is not None and value in r.values()
    ]
    own = plan.run_folder(row["number"]).relative_to(plan.folder)
    last = {"standard_error": errors[0] if errors else None, "last_step": points[-1][0] if points else None}
    return row | last | {"run": str(own)}


def command_line(plan: Plan, params: Mapping[str, object]) -> str:
    """What runs the experiment with the values of a trial, in a folder and with baselines of its own."""
    values = {field: text(value) for field, value in params.items()}
    return shlex.join(["python", "main.py", *trial.words(plan.sweep, values)])


def write(plan: Plan, study: Study) -> dict:
    """Writes results.json and results.csv, completely or not at all; returns what they hold."""
    found = collect(plan, study)
    folders.write_text(plan.folder / RESULTS_JSON, json.dumps(found, indent=2, allow_nan=False) + "\n")
    fields = list(plan.sweep.space)
    columns = ["number", "state", found["metric"], "standard_error", "last_step", *fields, "run", "detail"]
    part = plan.folder / f"{RESULTS_CSV}.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(_cells(row, fields) for row in found["trials"])
    part.replace(plan.folder / RESULTS_CSV)
    return found


def _cells(row, fields):
    params = [row["params"].get(field, "") for field in fields]
    return (
        [row[n] for n in ("number", "state", "value", "standard_error", "last_step")]
        + params
        + [
            row["run"],
            row["detail"],
        ]
    )


def draw(plan: Plan, found: Mapping) -> pathlib.Path | None:
    """Writes the picture, where there is a finished trial to draw; returns its path."""
    if not any(row["value"] is not None for row in found["trials"]):
        return None
    from genflow.sweep.picture import parallel_coordinates  # brings Matplotlib and JAX

    path = plan.folder / PICTURE
    parallel_coordinates(path, plan.sweep, found)
    return path


def lines(plan: Plan, found: Mapping, picture: pathlib.Path | None) -> str:
    """The table that a sweep ends with, and the command of its best trial."""
    short = short_names(list(plan.sweep.space))
    columns = ["trial", "state", found["metric"], "+-", *short.values()]
    rows = [
        [f"{row['number']:03}", row["state"], number(row["value"]), number(row["standard_error"])]
        + [number(row["params"].get(field)) for field in short]
        for row in found["trials"]
    ]
    done = sum(row["state"] in ("complete", "pruned", "failed") for row in found["trials"])
    rank = "lowest" if found["direction"] == "minimize" else "highest"
    text = [
        f"{plan.name}: {done} of {found['num_trials']} trials; {found['metric']} on the validation part, {rank} first"
    ]
    text += [table(columns, rows)] * bool(rows)
    text += [
        f"  trial {row['number']:03} failed: {row['detail']}" for row in found["trials"] if row["state"] == "failed"
    ]
    text += [f"{name:<10}{folders_shown(path)}" for name, path in _paths(plan, picture)]
    if found["best_command"]:
        text += [f"{'best':<10}{found['best_command']}", "          (for other seeds add --config.seed=1, 2, ...)"]
    return "\n".join(text)


def number(value: object) -> str | None:
    """A cell of the table: four significant digits, five of a figure above one.

    >>> number(0.00123456), number(1.88581), number(12), number("adam")
    ('0.001235', '1.8858', '12', 'adam')
    """
    if not isinstance(value, float):
        return None if value is None else text(value)
    return f"{value:.4f}" if 1 <= abs(value) < 1000 else f"{value:.4g}"


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last word of each field, or all of it where two have the same last word."""
    last = [field.rpartition(".")[2] for field in fields]
    return {field: word if last.count(word) == 1 else field for field, word in zip(fields, last, strict=True)}


def _paths(plan, picture):
    return [("results", plan.folder / RESULTS_CSV)] + [("picture", picture)] * bool(picture)


def folders_shown(path: pathlib.Path) -> pathlib.Path:
    """A path as short as it can be told here."""
    return path.relative_to(pathlib.Path.cwd()) if path.is_relative_to(pathlib.Path.cwd()) else path
