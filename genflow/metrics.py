"""What a run writes while it trains: metrics.jsonl (the record), TensorBoard events, W&B, a line or bar for people."""

import datetime
import hashlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams
from tqdm import tqdm

from genflow.errors import UserError
from genflow.goodput import read_attempts
from genflow.workdir import CONFIG_FILE, write_text

METRICS_FILE = "metrics.jsonl"
# Settings of W&B: neither source, output, command line nor machine leave the run
PRIVATE = {"console": "off", "silent": True, "save_code": False, "x_save_requirements": False, "host": ""}
PRIVATE |= {f"disable_{what}": True for what in ("code", "git", "job_creation")}
PRIVATE |= {f"x_disable_{what}": True for what in ("meta", "machine_info", "stats")}
COLUMNS = ("validation/bits_per_dim", "validation/nats", "train/loss")  # of TensorBoard's table of runs
ABANDONED = "abandoned"  # split of rows that a run has gone back from
Rows = list[dict]


class Writer:
    """Appends rows to metrics.jsonl and scalars to TensorBoard, and to W&B where it is on.

    Args:
      step: the run goes on from it; rows of later steps are deleted, as they will be written again.
      abandoned: they will be written otherwise: the run has diverged, and the rows that tell how stay, as 'abandoned'.
      tracker: what `tracked` yields.
    """

    def __init__(self, workdir: pathlib.Path, step: int, abandoned: bool = False, tracker: Any = None):
        path = workdir / METRICS_FILE
        rows = read_rows(workdir)
        if abandoned:
            rows = [row if row["step"] <= step else row | {"split": ABANDONED} for row in rows]
        keep = [row for row in rows if row["step"] <= step or row["split"] == ABANDONED]
        write_text(path, "".join(json.dumps(row) + "\n" for row in keep))
        self._file = path.open("a", buffering=1)
        self._workdir, self._tracker = workdir, tracker
        if tracker is not None and not tracker.step:  # a kill loses what W&B has not written: the new file holds all
            for row in keep:
                tracker.log(_values(row), step=row["step"])
        events = workdir / "tensorboard"
        is_first = not events.exists()
        # tensorboardX names the file by the second: without a suffix a quick restart would overwrite it
        self._events = SummaryWriter(str(events), purge_step=step + 1, filename_suffix=f".{step}")
        if is_first and (workdir / CONFIG_FILE).exists():
            self._describe(json.loads((workdir / CONFIG_FILE).read_text("utf-8")))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """One row; a value that is not finite is null, because JSON has no NaN, and a gap in TensorBoard."""
        values = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"step": step, "split": split, "time_utc": now, **values}) + "\n")
        known = {f"{split}/{name}": value for name, value in values.items() if value is not None}
        for name, value in known.items():
            self._events.add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(known, step=step)

    def write_sheet(self, step: int) -> None:
        """Adds the sheet samples/step_N.png to TensorBoard, where the run has drawn one."""
        path = self._workdir / "samples" / f"step_{step:08d}.png"
        if path.exists():
            with Image.open(path) as image:
                self._events.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def _describe(self, config):
        """The configuration, for TensorBoard's pages 'text' and 'hparams'."""
        # An indented block of Markdown is shown as it is
        self._events.add_text("config", "    " + json.dumps(config, indent=2).replace("\n", "\n    "), 0)
        leaves = {name: v if isinstance(v, bool | int | float | str) else json.dumps(v) for name, v in _leaves(config)}
        # add_hparams would write a folder of its own, which TensorBoard shows as another run
        experiment, start, _ = hparams(leaves, dict.fromkeys(COLUMNS))
        self._events.file_writer.add_summary(experiment)
        self._events.file_writer.add_summary(start)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._events.close()


def _values(row):
    return {f"{row['split']}/{name}": v for name, v in row.items() if isinstance(v, int | float) and name != "step"}


def _leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_rows(workdir: pathlib.Path) -> Rows:
    """The rows of metrics.jsonl; a last line that a kill cut short is dropped.

    Raises:
      UserError: a line is something else than a row.
    """
    path = workdir / METRICS_FILE
    rows = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines() if path.exists() else [], 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
        if not (isinstance(rows[-1], dict) and rows[-1].keys() >= {"step", "split"}):
            raise UserError(f"{path}: line {number} is no row with a step and a split; remove it")
    return rows


class Progress:
    """A bar on a terminal, otherwise one line for each call of `log`.

    Args:
      elsewhere: the seconds so far in which the run did something else than train.
    """

    def __init__(self, start: int, total: int, batch_size: int, elsewhere: Callable[[], float] = lambda: 0.0):
        self._start, self._total, self._batch_size, self._elsewhere = start, total, batch_size, elsewhere
        self._begin = time.monotonic()
        self._last = start, self._begin - elsewhere()  # step and seconds of training, on a clock of their own
        self._rate = math.nan
        self._bar = None
        if sys.stderr.isatty():
            form = "{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}]"
            self._bar = tqdm(initial=start, total=total, bar_format=form, dynamic_ncols=True, leave=True)

    def update(self, step: int, loss: float, name: str, begun: int | None = None) -> None:
        """Moves the bar to a step whose loss is known; `name` is its unit, or what it is, `begun` as in `log`."""
        if self._bar is not None:
            rate = self.images_per_second(step if begun is None else begun)
            self._bar.set_postfix_str(f"{rate:,.0f} images/s, {loss:.3f} {name}", refresh=False)
            self._bar.update(step - self._bar.n)

    def log(self, step: int, loss: float, name: str, begun: int | None = None) -> None:
        """Prints a line where there is no bar; the next rate counts from here. `begun` as of `images_per_second`."""
        begun = step if begun is None else begun
        rate, done, now = self.images_per_second(begun), begun - self._start, time.monotonic()
        if self._bar is None:
            left = (self._total - begun) * (now - self._begin) / done if done else math.nan
            print(
                f"step {step:>7}/{self._total}  {rate:>8,.0f} images/s  {loss:.4f} {name}  {clock(left)} left",
                file=sys.stderr,
                flush=True,
            )
        if begun > self._last[0]:
            self._rate, self._last = rate, (begun, now - self._elsewhere())

    def images_per_second(self, begun: int) -> float:
        """Mean rate of training since the last call of `log`, or since the first step; that one's where none was begun.

        Args:
          begun: the steps that the device was given so far. When a row is written one call is ahead of it, under way on
            an accelerator and done on a CPU: counted, it cancels out between two rows of either. In a pause nothing is
            ahead, and the rate of the row before stands.
        """
        (last, begin), now = self._last, time.monotonic() - self._elsewhere()
        if begun == last:
            return self._rate
        return (begun - last) * self._batch_size / (now - begin) if now > begin else math.nan

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


@contextmanager
def tracked(workdir: pathlib.Path, config: Mapping, mode: str) -> Iterator[Any]:
    """A run of Weights & Biases in the run folder that resumes with it, or None.

    Args:
      config: shown there.
      mode: 'offline' keeps it in workdir/wandb and opens no connection; 'online' sends it too; anything else is off.

    Raises:
      UserError: without the package, or 'online' without an account.
    """
    if mode not in ("offline", "online"):
        yield None
        return
    run = _open_tracker(workdir, config, mode)
    try:
        yield run
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _open_tracker(workdir, config, mode):
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"--wandb={mode} needs the package wandb: pip install -e '.[log]'") from error
    # The start of the folder's first attempt: the same after a resume, and in a folder that was moved
    attempts = read_attempts(workdir).get("attempts") or [{"started_utc": str(workdir)}]
    identity = hashlib.sha256(f"{attempts[0]['started_utc']} {config['name']}".encode()).hexdigest()[:16]
    place = {"project": "genflow", "name": workdir.name, "id": identity, "dir": str(workdir), "resume": "allow"}
    try:
        return wandb.init(**place, mode=mode, config=dict(config), settings=wandb.Settings(**PRIVATE))
    except wandb.errors.Error as error:
        remedy = "run `wandb login` first, or take --wandb=offline"
        raise UserError(f"--wandb={mode}: {' '.join(str(error).split())[:200]}; {remedy}") from error
