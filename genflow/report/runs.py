"""Runs side by side: found and read from their folders, finished or not, and what a table says of each."""

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from genflow.errors import UserError
from genflow.report import sections
from genflow.report.markup import Markup, amount, decimals, duration, element, join, number
from genflow.workdir import CONFIG_FILE, config_hash, read_config

NOT_METRICS = {"step", "split", "time_utc"}
DEPTHS = ("*", "trials/*", "*/trials/*")  # where a folder of runs has its runs


class Run(NamedTuple):
    """What is on disk of a run, finished or not; `record` and `goodput` are empty where there is none."""

    folder: Path
    config: dict
    config_hash: str
    record: dict
    rows: list[dict]
    goodput: dict


class Cell(NamedTuple):
    """What a cell of the table shows, and what it is sorted by; None: after all others."""

    content: Markup | str = ""
    key: float | str | None = None


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders that are named, and those in the folders of runs or of sweeps that are named, each once.

    Raises:
      UserError: there is no run; the message names the nearest folder that is one.
    """
    found = [folder for path in paths for folder in _runs_at(Path(path).expanduser())]
    return list({folder.resolve(): folder for folder in found}.values())


def _runs_at(path):
    if (path / CONFIG_FILE).is_file():
        return [path]
    inside = [file.parent for depth in DEPTHS for file in path.glob(f"{depth}/{CONFIG_FILE}")]
    if not inside:
        beside = [file.parent.name for file in path.parent.glob(f"*/{CONFIG_FILE}")]
        near = difflib.get_close_matches(path.name, beside, 1, 0.5)
        hint = f"did you mean {path.parent / near[0]}?" if near else "name run folders, or a folder of runs"
        raise UserError(f"{path}: no run there (no {CONFIG_FILE}); {hint}")
    return sorted(inside)


def read_runs(folders: Sequence[Path], read_rows: Callable, read_goodput: Callable) -> list[Run]:
    """Reads runs; one that cannot be read is left out with a warning where there are others.

    Args:
      read_rows: of genflow.metrics, as `read_goodput` is.

    Raises:
      UserError: none can be read.
    """
    runs, problems = [], []
    for folder in folders:
        try:
            config = read_config(folder)
            found = _record(folder), read_rows(folder), read_goodput(folder)
            runs.append(Run(folder, config.to_dict(), config_hash(config), *found))
        except UserError as error:
            problems.append(str(error))
    if not runs:
        raise UserError(problems[0])
    for problem in problems:
        print(f"WARNING: left out: {problem}", file=sys.stderr)
    return runs


def _record(folder):
    path = folder / "record.json"
    try:
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if isinstance(found, dict):
            return found
        problem = "it holds no record"
    except (OSError, ValueError) as error:
        problem = error
    raise UserError(f"cannot read {path}: {problem}; remove it, and --mode=train writes it again")


def is_finished(run: Run) -> bool:
    """Whether there is a record of all the steps that the run is to take."""
    return bool(run.record) and run.record.get("steps", 0) >= _num_steps(run)


def _num_steps(run):
    return _field(run, "train.num_steps") or 0


def _field(run, path):
    return sections.flatten(run.config).get(path)


def _text(value):
    return Cell(str(value), str(value)) if value else Cell()


def _steps(run):
    last = max((row["step"] for row in run.rows if row["split"] == "train"), default=run.record.get("steps", 0))
    of = "" if is_finished(run) else element("small", f" of {_num_steps(run):,}")
    return Cell(join([f"{last:,}", of]), last)


def _seconds(run):
    seconds = run.goodput.get("wall_seconds", run.record.get("wall_seconds"))
    return Cell() if seconds is None else Cell(duration(seconds), seconds)


def _goodput(run):
    value = (run.goodput or run.record.get("goodput") or {}).get("value")
    return Cell() if value is None else Cell(f"{value:.1%}", value)


def _validation(run):
    """That of the record; of an unfinished run the lowest so far."""
    figure = run.record.get("validation") if is_finished(run) else None
    return _figure(figure or _lowest(run), run)


def _lowest(run):
    metric = (_unit(run) or "").replace("/", "_per_")
    rows = [r for r in run.rows if r["split"] == "validation" and sections.is_finite(r.get(metric))]
    best = min(rows, key=lambda row: row[metric], default={})
    return {"value": best.get(metric), "standard_error": best.get("standard_error")}


def _unit(run):
    if run.record.get("unit"):
        return run.record["unit"]
    units = (
        {name for row in run.rows if row["split"] == "validation" for name in row} - NOT_METRICS - {"standard_error"}
    )
    return min(units, default="").replace("_per_", "/")


def _figure(line, run):
    if not sections.is_finite(line.get("value")):
        return Cell()
    value, error = line["value"], line.get("standard_error")
    prefix = sections.BOUNDS.get(run.record.get("bound"), ("", ""))[0]
    spread = element("small", f" ± {number(error, decimals(error))}") if error else ""
    return Cell(join([prefix, number(value, decimals(error)), spread]), value)


def _parameters(run):
    count = run.record.get("num_parameters")
    return Cell() if count is None else Cell(amount(count), count)


COLUMNS: dict[str, tuple[Callable[[Run], Cell], bool]] = {  # heading: what a cell holds, and whether it is a number
    "Status": (lambda run: _text("finished" if is_finished(run) else "unfinished"), False),
    "Model": (lambda run: _text(_field(run, "model.name")), False),
    "Data": (lambda run: _text(run.record.get("data") or _field(run, "data.name")), False),
    "Validation": (_validation, True),
    "Test": (lambda run: _figure(run.record if run.record.get("split", "test") == "test" else {}, run), True),
    "Unit": (lambda run: _text(_unit(run)), False),
    "Steps": (_steps, True),
    "Wall time": (_seconds, True),
    "Goodput": (_goodput, True),
    "Parameters": (_parameters, True),
    "Hardware": (lambda run: _text(run.record.get("hardware")), False),
    "Config": (lambda run: Cell(element("code", run.config_hash), run.config_hash), False),
}
