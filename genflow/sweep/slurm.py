"""Trials as one SLURM array, through submitit."""

import signal
import time
from collections.abc import Mapping, Sequence

from genflow.errors import UserError
from genflow.sweep.local import Job, Process
from genflow.sweep.study import Study
from genflow.sweep.trial import Plan

CLUSTERS = ("slurm", "local", "debug")
LOST = -signal.SIGKILL  # the exit status of a job whose end is not known: cancelled, or its node is gone
GRACE = 60.0  # seconds for a run to save its checkpoint


class Task:
    """What a job of the array does; submitit stores it in a file, and calls `checkpoint` before the time is over."""

    def __init__(self, job: Job):
        self._job = job
        self._process = None

    def __call__(self) -> int:
        """Runs the trial; returns its exit status."""
        self._process = Process(self._job)
        try:
            while (status := self._process.poll()) is None:
                time.sleep(0.2)
            return status
        finally:
            self._end()

    def checkpoint(self):
        """Of a job that is preempted or out of time: saves, and puts it into the queue again."""
        self._end()
        return _submitit().helpers.DelayedSubmission(Task(self._job))

    def _end(self):
        if self._process is None:
            return
        self._process.stop()
        last = time.monotonic() + GRACE
        while self._process.poll() is None and time.monotonic() < last:
            time.sleep(0.2)
        self._process.kill()


class Queued:
    """A job of the array."""

    def __init__(self, job):
        self._job = job

    def poll(self) -> int | None:
        """The exit status of its trial; LOST where there is none."""
        if not self._job.done():
            return None
        if self._job.paths.result_pickle.exists() and self._job.exception() is None:
            return self._job.result()
        return LOST

    def stop(self) -> None:
        """Cancels it: SLURM sends SIGTERM first."""
        if not self._job.done():
            self._job.cancel()

    def kill(self) -> None:
        """SLURM sends SIGKILL by itself."""


class Array:
    """Starts all trials at once; SLURM runs `workers` of them at a time."""

    def __init__(self, plan: Plan, study: Study, cluster: str, options: Mapping[str, object]):
        if plan.sweep.sampler == "tpe":
            raise UserError("sampler='tpe' learns from finished trials, an array is drawn at once: use random or grid")
        self.capacity = plan.sweep.num_trials
        self._study = study
        self._folder = plan.folder / "slurm"
        self._executor = make_executor(self._folder, cluster, plan.sweep.workers, options, plan.name)

    def start(self, jobs: Sequence[Job]) -> list[Queued]:
        """Submits them as one array."""
        if not jobs:
            return []
        submitted = self._executor.map_array(_call, [Task(job) for job in jobs])
        for job, queued in zip(jobs, submitted, strict=True):
            self._study.remember(job.number, job_id=queued.job_id)
        return [Queued(queued) for queued in submitted]

    def attach(self, number: int) -> Queued | None:
        """A job that an earlier process has submitted, where it still waits or runs."""
        job_id = self._study.recall(number, "job_id")
        if not job_id or self._executor.cluster != "slurm":
            return None
        job = _submitit().SlurmJob(self._folder, job_id)
        return None if job.done(force_check=True) else Queued(job)


def _call(task: Task):
    return task()


def make_executor(folder, cluster: str, workers: int, options: Mapping[str, object], name: str):
    """submitit's executor.

    Raises:
      UserError: no submitit, no sbatch, or an option that it does not know.
    """
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        common = {"name": name} | ({"slurm_array_parallelism": workers} if cluster == "slurm" else {})
        executor.update_parameters(**(common | dict(options)))
    except (RuntimeError, TypeError, NameError, ValueError) as error:
        raise UserError(f"--engine=slurm: {error}") from error
    return executor


def _submitit():
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise UserError("--engine=slurm needs submitit: pip install 'genflow[slurm]'") from error
    return submitit
