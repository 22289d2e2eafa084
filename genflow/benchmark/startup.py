"""How long `python main.py` takes to its first train step: a process that is ended as soon as it gets there."""

import datetime
import importlib.metadata
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from genflow.benchmark.core_suite import ROOT
from genflow.errors import UserError
from genflow.metrics import read_rows

PAUSE = 0.05  # seconds between looks at the run folder
PATIENCE = 1800  # seconds


def first_step(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Wall and CPU seconds from the start of a process to the first row of its run's metrics.

    Args:
      words: of the command line, after `main.py`; with `train.log_every` at 1 the first row is the first step's.
      environment: of the process, and nothing else.

    Raises:
      UserError: the run ended, or half an hour passed, before there was a row.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        run = Path(folder) / "run"
        command = [sys.executable, str(ROOT / "main.py"), *words, f"--workdir={run}"]
        cpu, begin = _children(), datetime.datetime.now(datetime.UTC)
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output)
        try:
            row = _first_row(process, run)
        finally:
            process.kill()
            process.wait()
        if row is None:
            output.seek(0)
            last = (output.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(f"main.py took no step (status {process.returncode}): {last}")
        wall = datetime.datetime.fromisoformat(row["time_utc"]) - begin
        return {"wall s": wall.total_seconds(), "CPU s": _children() - cpu}


def _first_row(process, run):
    for _ in range(round(PATIENCE / PAUSE)):
        if rows := read_rows(run):
            return rows[0]
        if process.poll() is not None:
            return None
        time.sleep(PAUSE)
    return None


def _children():
    """CPU seconds of the processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def versions() -> dict[str, str]:
    """Of Python and JAX; `provenance.versions` would import the latter."""
    return {"python": platform.python_version(), "jax": importlib.metadata.version("jax")}
