"""What a run writes while it trains: metrics.jsonl (the record), TensorBoard events, and a line or bar for people."""

import datetime
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tensorboardX import SummaryWriter
from tqdm import tqdm

from genflow.workdir import write_text

METRICS_FILE = "metrics.jsonl"
ABANDONED = "abandoned"  # split of rows that a run has gone back from
Rows = list[dict]


class Writer:
    """Appends rows to metrics.jsonl and scalars to TensorBoard.

    Args:
      step: the run goes on from it; rows of later steps are deleted, as they will be written again.
      abandoned: they will be written otherwise: the run has diverged, and the rows that tell how stay, as 'abandoned'.
    """

    def __init__(self, workdir: pathlib.Path, step: int, abandoned: bool = False):
        path = workdir / METRICS_FILE
        rows = read_rows(workdir)
        if abandoned:
            rows = [row if row["step"] <= step else row | {"split": ABANDONED} for row in rows]
        keep = [row for row in rows if row["step"] <= step or row["split"] == ABANDONED]
        write_text(path, "".join(json.dumps(row) + "\n" for row in keep))
        self._file = path.open("a", buffering=1)
        # tensorboardX names the file by the second: without a suffix a quick restart would overwrite it
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step}")

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """One row; a value that is not finite is null, because JSON has no NaN, and a gap in TensorBoard."""
        values = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"step": step, "split": split, "time_utc": now, **values}) + "\n")
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._events.close()


def read_rows(workdir: pathlib.Path) -> Rows:
    """The rows of metrics.jsonl; a last line that a kill cut short is dropped."""
    path = workdir / METRICS_FILE
    rows = []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Progress:
    """A bar on a terminal, otherwise one line for each call of `log`."""

    def __init__(self, start: int, total: int, batch_size: int):
        self._start, self._total, self._batch_size = start, total, batch_size
        self._begin = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            form = "{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}]"
            self._bar = tqdm(initial=start, total=total, bar_format=form, dynamic_ncols=True, leave=True)

    def update(self, step: int, loss: float, name: str) -> None:
        """Moves the bar to a step whose loss is known; `name` is its unit, or what it is."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.images_per_second(step):,.0f} images/s, {loss:.3f} {name}", refresh=False)
            self._bar.update(step - self._bar.n)

    def log(self, step: int, loss: float, name: str) -> None:
        """Prints a line where there is no bar."""
        if self._bar is None:
            rate = self.images_per_second(step)
            left = (self._total - step) * self._batch_size / rate if rate else math.nan
            print(
                f"step {step:>7}/{self._total}  {rate:>8,.0f} images/s  {loss:.4f} {name}  {clock(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def images_per_second(self, step: int) -> float:
        """Mean rate since this process took its first step."""
        elapsed = time.monotonic() - self._begin
        return (step - self._start) * self._batch_size / elapsed if elapsed > 0 else math.nan

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def clock(seconds: float) -> str:
    """'1:02:03' or '2:03'; '?' when unknown."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Stopwatch:
    """Seconds spent in named parts of a run."""

    def __init__(self, seconds: Mapping[str, float] = {}):
        self.seconds = dict(seconds)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time of a with-block to `part`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - begin
