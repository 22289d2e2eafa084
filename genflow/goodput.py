"""How much of a run's time was productive, over all its attempts: attempts.json.

The definition is that of Google's ml-goodput-measurement, but that time in which nothing ran is told apart.
"""

import datetime
import json
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from genflow.workdir import write_text

ATTEMPTS_FILE = "attempts.json"
BEAT_SECONDS = 10.0  # a kill hides at most so many seconds from attempts.json


class Stopwatch:
    """Seconds spent in named parts of a run."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time of a with-block to `part`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - begin

    def elsewhere(self, part: str) -> float:
        """Seconds spent in other parts than this one."""
        return sum(seconds for name, seconds in self.seconds.items() if name != part)


class RunClock(Stopwatch):
    """The seconds of a run over all its attempts, one for each process, and how many of them were productive.

    Productive are the train calls whose steps are kept. A checkpoint carries the productive seconds up to its step;
    what a kill or a rollback takes back is the difference to the train seconds of all attempts, in attempts.json.

    Args:
      started: time.monotonic() when the process began; now by default.
    """

    def __init__(self, started: float | None = None):
        super().__init__()
        now = time.monotonic()
        self._begin = now if started is None else started
        self._startup = now - self._begin
        started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=self._startup)
        self._started_utc = started.isoformat(timespec="microseconds")
        self._path: pathlib.Path | None = None
        self._earlier: list[dict] = []
        self._carried: dict[str, float] = {}  # of earlier attempts, and part of self.seconds
        self._kept, self._since = 0.0, 0.0  # productive seconds up to a checkpoint, train seconds when it was read
        self._writing = threading.Lock()

    @contextmanager
    def attempt(self, workdir: pathlib.Path) -> Iterator[None]:
        """Keeps attempts.json of a run folder while the with-block lasts."""
        known, ended = read_attempts(workdir), threading.Event()
        self._earlier, self._kept = known.get("attempts", []), known.get("productive", 0.0)
        self._path = workdir / ATTEMPTS_FILE
        self.beat()
        beats = threading.Thread(target=self._beats, args=(ended,), daemon=True)
        beats.start()
        try:
            yield
        finally:
            ended.set()
            beats.join()
            self.beat()

    def _beats(self, ended):
        while not ended.wait(BEAT_SECONDS):
            self.beat()

    def carry(self, metadata: Mapping) -> None:
        """Goes on from a checkpoint of an earlier attempt: its seconds count as those of this run."""
        self._carried = dict(metadata.get("seconds", {}))
        self.seconds = {
            part: self._carried.get(part, 0.0) + self.seconds.get(part, 0.0) for part in self._carried | self.seconds
        }
        self.go_back(metadata)

    def go_back(self, metadata: Mapping) -> None:
        """What was trained after a checkpoint is lost."""
        trained = sum(attempt["parts"].get("train", 0.0) for attempt in self._attempts())
        self._kept = min(metadata.get("productive", 0.0), trained)  # a run folder may have lost its attempts.json
        self._since = self.seconds.get("train", 0.0)

    def productive(self) -> float:
        """Seconds of train calls whose steps are kept so far: what a checkpoint carries."""
        return self._kept + self.seconds.get("train", 0.0) - self._since

    def goodput(self) -> dict:
        """As the function `goodput`, now."""
        return goodput(self._attempts(), self.productive())

    def beat(self) -> None:
        """Writes attempts.json, as a thread does every BEAT_SECONDS."""
        if self._path is None:
            return
        with self._writing, suppress(OSError):  # a full disk is told of where a checkpoint needs it
            known = {"productive": round(self.productive(), 3), "attempts": self._attempts()}
            write_text(self._path, json.dumps(known, indent=1) + "\n")

    def _attempts(self):
        own = {part: round(s - self._carried.get(part, 0.0), 3) for part, s in dict(self.seconds).items()}
        parts = {"startup": round(self._startup, 3)} | {part: s for part, s in own.items() if s > 0}
        seconds = round(time.monotonic() - self._begin, 3)
        return [*self._earlier, {"started_utc": self._started_utc, "seconds": seconds, "parts": parts}]


def goodput(attempts: Sequence[Mapping], productive: float) -> dict:
    """Productive seconds over the seconds in which any attempt ran, and where the other seconds went.

    Args:
      attempts: of attempts.json, each with 'started_utc', 'seconds' and the seconds of its 'parts'.
      productive: seconds of train calls whose steps are kept.

    Returns:
      'value' between 0 and 1, or None before the first second; 'wall_seconds', the sum of attempts; 'idle_seconds'
      between them, in which nothing ran; 'seconds' by part, which add to the wall; 'attempts' with start and length.
    """
    wall = sum(attempt["seconds"] for attempt in attempts)
    parts: dict[str, float] = {}
    for attempt in attempts:
        for part, seconds in attempt["parts"].items():
            parts[part] = parts.get(part, 0.0) + seconds
    trained = parts.pop("train", 0.0)
    unnamed = max(wall - trained - sum(parts.values()), 0.0)
    spent = {"productive": productive, "lost": max(trained - productive, 0.0)} | parts | {"other": unnamed}
    return {
        "value": round(min(productive / wall, 1.0), 4) if wall else None,
        "wall_seconds": round(wall, 1),
        "idle_seconds": round(_idle(attempts), 1),
        "seconds": {part: round(seconds, 1) for part, seconds in spent.items()},
        "attempts": [{"started_utc": a["started_utc"], "seconds": round(a["seconds"], 1)} for a in attempts],
    }


def _idle(attempts):
    begins = [datetime.datetime.fromisoformat(attempt["started_utc"]).timestamp() for attempt in attempts]
    ends = [begin + attempt["seconds"] for begin, attempt in zip(begins, attempts, strict=True)]
    return sum(max(begin - end, 0.0) for begin, end in zip(begins[1:], ends[:-1], strict=True))


def read_goodput(workdir: pathlib.Path) -> dict:
    """As the function `goodput`, of a run that may have ended in any way; empty where nothing is known."""
    known = read_attempts(workdir)
    return goodput(known["attempts"], known["productive"]) if known else {}


def read_attempts(workdir: pathlib.Path) -> dict:
    """What attempts.json holds: 'productive' seconds and the 'attempts'; empty where it is absent or damaged."""
    try:
        known = json.loads((workdir / ATTEMPTS_FILE).read_text("utf-8"))
        goodput(known["attempts"], known["productive"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # absent, or not as it was written
        return {}
    return known
