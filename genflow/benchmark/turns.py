"""Contestants take turns: each is a process that stays alive, and only one of them works at a time.

The two ends of the protocol stand together: `serve` runs in a contestant, `take_turns` conducts. One line of JSON goes
in each direction: facts once at the start, then a number of steps to run against the seconds that they took.
"""

import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from genflow.errors import UserError


class Contestant(NamedTuple):
    """A name for the table, the command that serves, and what its environment adds."""

    name: str
    command: list[str]
    environment: dict[str, str]


class Score(NamedTuple):
    """What one contestant reported; times in seconds, a list of steps for each turn."""

    name: str
    facts: dict
    wall: list[list[float]]
    cpu: list[list[float]]
    peak_bytes: int

    @property
    def median(self) -> float:
        """Median wall seconds of a step."""
        return statistics.median(second for turn in self.wall for second in turn)

    @property
    def cpu_median(self) -> float:
        """Median CPU seconds of a step, summed over the cores: steadier than wall time on a busy machine."""
        return statistics.median(second for turn in self.cpu for second in turn)

    def ratio(self, other: "Score", clock: str = "wall") -> float:
        """Time over that of another contestant, paired by turn: a change of load falls on both.

        Args:
          clock: 'wall' or 'cpu'.
        """
        pairs = zip(getattr(self, clock), getattr(other, clock), strict=True)
        return statistics.median(statistics.median(own) / statistics.median(theirs) for own, theirs in pairs)


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds of one call, which must return only when its work is done."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def serve(facts: dict, step: Callable[[], object]) -> None:
    """Answers the conductor until it closes the line."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        wall, cpu = zip(*(timed(step) for _ in range(int(line))), strict=True)
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_bytes": peak_bytes()}), flush=True)


def peak_bytes() -> int:
    """Largest resident size of this process; on Linux not from getrusage, which begins with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def take_turns(contestants: list[Contestant], rounds: int, steps: int) -> list[Score]:
    """Starts the contestants one after the other, then gives each `steps` steps in each of `rounds` rounds."""
    with contextlib.ExitStack() as stack:
        asks = [stack.enter_context(_running(contestant)) for contestant in contestants]
        facts = [ask("") for ask in asks]
        for ask in asks:
            ask("2")  # page in what waiting for the others has driven out
        turns = [[ask(str(steps)) for ask in asks] for _ in range(rounds)]
    return [
        Score(c.name, facts[i], [t[i]["wall"] for t in turns], [t[i]["cpu"] for t in turns], turns[-1][i]["peak_bytes"])
        for i, c in enumerate(contestants)
    ]


@contextlib.contextmanager
def _running(contestant: Contestant) -> Iterator[Callable[[str], dict]]:
    """A started process as ask(line) -> answer; the empty line only listens."""
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        environment = os.environ | contestant.environment
        process = subprocess.Popen(contestant.command, env=environment, text=True, bufsize=1, **pipes)

        def ask(line):
            if line:
                with contextlib.suppress(BrokenPipeError):  # reported below, with its own last words
                    process.stdin.write(f"{line}\n")
            answer = process.stdout.readline()
            if not answer:
                process.wait()
                errors.seek(0)
                last = (errors.read().strip().splitlines() or ["no message"])[-1]
                raise UserError(f"{contestant.name} stopped with status {process.returncode}: {last}")
            return json.loads(answer)

        try:
            yield ask
        finally:
            process.kill()
            process.communicate()
