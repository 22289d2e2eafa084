"""The loop of a sweep: draws trials, starts them, reads their validation figures, ends those that are behind."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from genflow.errors import UserError
from genflow.metrics import METRICS_FILE
from genflow.sweep import trial
from genflow.sweep.local import GRACE, Handle, Job, end
from genflow.sweep.study import Study
from genflow.sweep.trial import Outcome, Plan

POLL = 0.25  # seconds between looks at the running trials
RESTARTS = 2  # in a row, of a trial that something else than the sweep has ended and that got no further


class Launcher(Protocol):
    """Where trials run."""

    capacity: int  # trials at a time, waiting ones included

    def start(self, jobs: Sequence[Job]) -> list[Handle]:
        """Starts trials."""

    def attach(self, number: int) -> Handle | None:
        """A trial that an earlier process of the sweep has started and that still waits or runs."""


class Stopped(Exception):
    """A signal ended the sweep; its trials have been told to save."""

    def __init__(self, number: int):
        super().__init__("stopped; run the same command to go on")
        self.exit_status = 128 + number


def drive(plan: Plan, study: Study, launcher: Launcher, tell: Callable[[int, Outcome], None]) -> None:
    """Runs a sweep to its end, first of all the trials that an earlier process left unfinished.

    Args:
      tell: is called with each trial that ends, after the study knows it.

    Raises:
      UserError: a trial was refused for bad input, as any other may be.
      Stopped: SIGTERM or SIGINT.
    """
    running: dict[int, Handle] = {}
    with interruptible() as signals:
        try:
            _loop(plan, study, launcher, tell, running, signals)
        finally:
            end(list(running.values()), 2 * GRACE)  # the job of a queue gives its run GRACE
    if signals:
        raise Stopped(signals[0])


def _loop(plan, study, launcher, tell, running, signals):
    waiting, pruned, restarts = study.unfinished(), set(), Restarts(plan)
    attached = {number: handle for number in waiting if (handle := launcher.attach(number))}
    running.update(attached)
    waiting = [number for number in waiting if number not in attached]
    orphans, sizes = {}, {}
    while not signals:
        for number in [n for n in running if running[n].poll() is not None]:
            found = trial.outcome(plan, number, running.pop(number).poll(), number in pruned)
            if found.state == "interrupted" and restarts.allow(number):
                waiting.insert(0, number)
            else:
                settle(study, number, found, plan, tell)
        held = _held(plan, waiting, orphans)  # what holds them has a worker's place
        started = _start(plan, study, launcher, waiting, held, launcher.capacity - len(running) - len(held), tell)
        running.update(started)
        if not running and not waiting:
            return
        for number in running:
            if number not in pruned and has_grown(plan, number, sizes) and is_behind(plan, study, number):
                pruned.add(number)
                running[number].stop()
        time.sleep(POLL)


class Restarts:
    """Which trials that something else than the sweep has ended are resumed; of this process of the sweep."""

    def __init__(self, plan: Plan):
        self._plan, self._steps, self._counts = plan, {}, {}

    def allow(self, number: int) -> bool:
        """Whether one that was interrupted now is resumed: it has got further, or this was not often so."""
        before, step = self._steps.get(number, 0), trial.last_step(self._plan, number)
        self._steps[number] = max(step, before)
        self._counts[number] = 0 if step > before else self._counts.get(number, 0) + 1
        return self._counts[number] <= RESTARTS


def _held(plan, waiting, orphans):
    """Those of the waiting trials whose run folder a process of an earlier sweep still has."""
    for number in waiting:
        orphans.setdefault(number, trial.Orphan(plan.run_folder(number)))
    held = {number for number in waiting if orphans[number].runs()}
    for number in set(orphans) - held:
        del orphans[number]
    return held


def _start(plan, study, launcher, waiting, held, most, tell):
    """Starts up to `most` trials, first those that wait and are not held."""
    jobs = []
    while len(jobs) < most:
        number = next((number for number in waiting if number not in held), None)
        if number is not None:
            waiting.remove(number)
        elif (number := study.ask()) is None:
            break
        if trial.is_recorded(plan, number):  # its end came just before that of the sweep
            settle(study, number, trial.outcome(plan, number, 0), plan, tell)
        else:
            jobs.append(make_job(plan, study, number))
    handles = launcher.start(jobs)
    return {job.number: handle for job, handle in zip(jobs, handles, strict=True)}


def make_job(plan: Plan, study: Study, number: int) -> Job:
    """A trial as what an engine starts."""
    return Job(number, trial.command(plan, number, study.params(number)), plan.cwd, plan.log(number))


def has_grown(plan: Plan, number: int, sizes: dict[int, int]) -> bool:
    """Whether a trial has written rows since the last call, which left the sizes of the files in `sizes`."""
    path = plan.run_folder(number) / METRICS_FILE
    size = path.stat().st_size if path.exists() else 0
    before, sizes[number] = sizes.get(number, 0), size
    return size != before


def is_behind(plan: Plan, study: Study, number: int) -> bool:
    """Tells the study the validation figures of a running trial; whether the pruner would end it."""
    points = trial.curve(plan, number)
    study.report(number, points)
    return plan.sweep.pruner != "none" and bool(points) and study.should_prune(number)


def settle(study: Study, number: int, found: Outcome, plan: Plan, tell: Callable[[int, Outcome], None]) -> None:
    """Notes how a trial ended.

    Raises:
      UserError: it was refused, or has nothing that could be compared: so would be the others.
    """
    if found.state == "refused":
        raise UserError(f"trial {number} was refused: {found.detail}")
    if found.state == "failed" and trial.is_recorded(plan, number) and not trial.curve(plan, number):
        raise UserError(
            f"trial {number} has no validation figure: its model has no likelihood, or its data no validation part; "
            "set overrides['data.validation'] above zero"
        )
    if found.state == "interrupted":
        found = found._replace(state="failed", detail=f"{found.detail}, {RESTARTS + 1} times without getting further")
    study.report(number, trial.curve(plan, number))
    study.finish(number, found)
    tell(number, found)


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Yields a list that receives the number of a SIGTERM or SIGINT; a second signal ends the process at once."""
    received: list[int] = []

    def note(number, frame):
        if received:
            os._exit(128 + number)  # the leash ends the trials
        received.append(number)
        print("stopping: the trials save and end; a second signal ends at once", file=sys.stderr, flush=True)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
