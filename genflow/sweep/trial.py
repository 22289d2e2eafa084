"""One trial: its command line, its run folder, and what became of it."""

import os
import pathlib
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from genflow import cli
from genflow.errors import UserError
from genflow.metrics import METRICS_FILE, read_rows
from genflow.sweep.space import LEAN, Sweep, base_config, text
from genflow.workdir import LOCK_FILE, lock

RECORD_FILE = "record.json"
NOT_FIGURES = ("step", "split", "time_utc", "standard_error")
PATIENCE = 60.0  # seconds for a process of an earlier sweep to let go of its run folder, and again after SIGTERM
LOST = -1000  # stands for the exit status of a trial whose end nobody saw
STOPPED = tuple(128 + number for number in signal.valid_signals())  # exit statuses, as a shell has them

Curve = list[tuple[int, float]]  # (step, value) of each validation; NaN where it was not finite


class Plan(NamedTuple):
    """A sweep with what it needs to know of this place."""

    name: str
    sweep: Sweep
    folder: pathlib.Path  # of the sweep
    cwd: str  # of every trial: paths in the configuration are relative to it
    select: str  # config.eval.select: which checkpoint a run is judged by

    def run_folder(self, number: int) -> pathlib.Path:
        """Where a trial's run is."""
        return self.folder / "trials" / f"{number:03}"

    def log(self, number: int) -> pathlib.Path:
        """What a trial prints; outside its run folder, which a run must find empty at its start."""
        return self.folder / "logs" / f"{number:03}.log"


class Outcome(NamedTuple):
    """How a trial ended: 'complete', 'pruned', 'failed', 'refused' (bad input) or 'interrupted' (to be resumed)."""

    state: str
    value: float | None = None
    detail: str = ""


def make_plan(name: str, sweep: Sweep, folder: pathlib.Path) -> Plan:
    """The plan of a sweep in a folder."""
    return Plan(name, sweep, folder.resolve(), os.getcwd(), base_config(sweep).eval.select)


def words(sweep: Sweep, params: Mapping[str, str]) -> list[str]:
    """The configuration of a trial as words of a command line that starts with python main.py."""
    given = {field: text(value) for field, value in sweep.overrides.items()} | dict(params)
    return [f"--config={sweep.config}", *(f"--config.{field}={value}" for field, value in given.items())]


def command(plan: Plan, number: int, params: Mapping[str, str]) -> list[str]:
    """The command that runs or resumes a trial: the same words each time, so that the run folder is its own."""
    trainer = plan.sweep.trainer or (sys.executable, str(cli.ROOT / "main.py"))
    path, arg = cli.find_config(plan.sweep.config)
    name = f"{path.resolve()}{':' * bool(arg)}{arg}"
    lean = {field: value for field, value in LEAN.items() if field not in plan.sweep.overrides}
    sweep = plan.sweep._replace(config=name, overrides=lean | dict(plan.sweep.overrides))
    return [*trainer, *words(sweep, params), f"--workdir={plan.run_folder(number)}"]


def curve(plan: Plan, number: int) -> Curve:
    """The validation figures of a trial so far; never those of another part.

    Raises:
      UserError: the rows have no column of the name that the sweep gives.
    """
    rows = [row for row in read_rows(plan.run_folder(number)) if row["split"] == "validation"]
    latest = {row["step"]: row for row in rows}
    return [(step, _figure(plan.sweep.metric, latest[step])) for step in sorted(latest)]


def _figure(metric, row):
    names = [name for name in row if name not in NOT_FIGURES]
    if metric and metric not in names:
        raise UserError(f"metric={metric!r}: the validation rows of {METRICS_FILE} have {', '.join(names)}")
    value = row[metric or names[0]]
    return float("nan") if value is None else float(value)


def metric_name(plan: Plan, number: int) -> str:
    """The column that is the objective, where a trial has been validated; '' before."""
    rows = (row for row in read_rows(plan.run_folder(number)) if row["split"] == "validation")
    first = next((name for row in rows for name in row if name not in NOT_FIGURES), "")
    return plan.sweep.metric or first


def last_step(plan: Plan, number: int) -> int:
    """How far a trial has ever got; 0 without a row."""
    return max((row["step"] for row in read_rows(plan.run_folder(number))), default=0)


def objective(plan: Plan, points: Curve) -> float | None:
    """A run's validation figure: that of its best checkpoint, or of its last where eval.select is 'last'."""
    known = [value for _, value in points if value == value]
    if not known:
        return None
    if plan.select == "last":
        return points[-1][1] if points[-1][1] == points[-1][1] else None
    return min(known) if plan.sweep.direction == "minimize" else max(known)


def is_recorded(plan: Plan, number: int) -> bool:
    """Whether a trial's run came to its end; record.json is the last thing that it cannot do without."""
    return (plan.run_folder(number) / RECORD_FILE).is_file()


def outcome(plan: Plan, number: int, status: int, stopped: bool = False) -> Outcome:
    """What became of a trial whose process has ended.

    Args:
      status: its exit status; below zero or in STOPPED: a signal; or LOST.
      stopped: the sweep ended it, because it was behind the others.
    """
    value = objective(plan, curve(plan, number))
    if is_recorded(plan, number):
        return Outcome("complete", value) if value is not None else Outcome("failed", None, _unscored(plan, number))
    if stopped:
        return Outcome("pruned", value)
    if status == LOST:
        return Outcome("interrupted", value, "its job or node was lost, cancelled or out of time")
    if status < 0 or status in STOPPED:
        return Outcome("interrupted", value, f"ended by signal {-status if status < 0 else status - 128}")
    detail = last_words(_read(plan.log(number))) or f"exit status {status}"
    if status == 2 and detail.startswith(f"{plan.run_folder(number)} is in use by"):
        return Outcome("interrupted", value, detail)  # an orphan took it first
    # A run that has begun to train and then gives up has diverged: that is a result, and the others go on.
    begun = (plan.run_folder(number) / METRICS_FILE).exists()
    return Outcome("refused" if status == 2 and not begun else "failed", value, detail)


def _unscored(plan, number):
    if curve(plan, number):
        return "its validation figures are not finite"
    return "it has no validation figure"


def _read(log):
    return log.read_text("utf-8", errors="replace") if log.exists() else ""


def last_words(log: str) -> str:
    """The message after the last 'error: ' of what a process has printed, or else its last line."""
    lines = [line for line in log.splitlines() if line.strip()]
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    told = lines[starts[-1] :] if starts else lines[-1:]
    return "\n".join(told[:3]).removeprefix("error: ").strip()


class Orphan:
    """A process of an earlier sweep that may still write to a run folder; one that does not end is terminated."""

    def __init__(self, run_folder: pathlib.Path, patience: float = PATIENCE):
        self._run_folder, self._patience = run_folder, patience
        self._signals = [signal.SIGTERM, signal.SIGKILL]
        self._deadline = time.monotonic() + patience

    def runs(self) -> bool:
        """Whether it still has the folder; sends it the next signal when its time is over.

        Raises:
          UserError: it runs on another host and does not end.
        """
        if not is_locked(self._run_folder):
            return False
        if time.monotonic() > self._deadline:
            if not self._signals:
                raise UserError(
                    _holder(self._run_folder) or f"{self._run_folder} is in use; stop the process that has it"
                )
            _send(self._run_folder, self._signals.pop(0))
            self._deadline = time.monotonic() + self._patience
        return True


def wait_until_free(run_folder: pathlib.Path, patience: float = PATIENCE) -> None:
    """Returns when no process of an earlier sweep writes to a run folder; see `Orphan`."""
    orphan = Orphan(run_folder, patience)
    while orphan.runs():
        time.sleep(0.2)


def is_locked(run_folder: pathlib.Path) -> bool:
    """Whether a process holds a run folder."""
    return bool(_holder(run_folder))


def _holder(run_folder):
    if not (run_folder / LOCK_FILE).exists():
        return ""
    try:
        with lock(run_folder):
            return ""
    except UserError as error:
        return str(error)


def _send(run_folder, number):
    match = re.match(r"process (\d+) on (\S+),", (run_folder / LOCK_FILE).read_text("utf-8", errors="replace"))
    if match and match[2] == socket.gethostname():
        try:
            os.kill(int(match[1]), number)
        except ProcessLookupError:
            pass
