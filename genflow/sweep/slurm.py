"""Trials as one SLURM array, through submitit."""

import json
import time
from collections.abc import Mapping, Sequence

from genflow import workdir as folders
from genflow.errors import UserError
from genflow.sweep.local import PAUSE, Job, Process, end
from genflow.sweep.study import Study
from genflow.sweep.trial import LOST, Plan

CLUSTERS = ("slurm", "local", "debug")
FOLDER = "slurm"  # of the sweep's folder: submitit's files
MARKER_FILE = "submitting.json"  # there while jobs may be in the queue that the study does not know


class Task:
    """What the array does with each trial; submitit stores it in a file, and calls `checkpoint` before time is over."""

    def __init__(self):
        self._process = None

    def __call__(self, job: Job) -> int:
        """Runs the trial; returns its exit status."""
        self._process = Process(job)
        try:
            while (status := self._process.poll()) is None:
                time.sleep(PAUSE)
            return status
        finally:
            self._end()

    def checkpoint(self, job: Job):
        """Of a job that is preempted or out of time: saves, and puts it into the queue again."""
        self._end()
        return _submitit().helpers.DelayedSubmission(Task(), job)

    def _end(self):
        if self._process is not None:
            end([self._process])


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

    def __init__(self, plan: Plan, study: Study, executor):
        self.capacity = plan.sweep.num_trials
        self._study, self._folder, self._executor = study, plan.folder / FOLDER, executor
        self._marker = self._folder / MARKER_FILE
        if self._marker.exists():
            raise UserError(
                f"{self._marker}: an earlier process ended while it submitted jobs, which may be in the queue; cancel "
                f"those of this sweep (squeue --me --name={plan.name}, scancel ID), then delete this file"
            )

    def start(self, jobs: Sequence[Job]) -> list[Queued]:
        """Submits them as one array.

        Raises:
          UserError: sbatch has refused them.
        """
        if not jobs:
            return []
        if self._executor.cluster == "slurm":  # jobs without a queue hold their run folders
            self._folder.mkdir(parents=True, exist_ok=True)
            folders.write_text(self._marker, json.dumps([job.number for job in jobs]) + "\n")
        submitted = self._submit(jobs)
        for job, queued in zip(jobs, submitted, strict=True):
            self._study.remember(job.number, job_id=queued.job_id)
        self._marker.unlink(missing_ok=True)
        return [Queued(queued) for queued in submitted]

    def _submit(self, jobs):
        try:
            return self._executor.map_array(Task(), jobs)
        except _submitit().core.utils.FailedJobError as error:
            if "timed out" not in str(error):  # then SLURM may have taken them
                self._marker.unlink(missing_ok=True)
            raise UserError(f"--engine=slurm: {str(error).strip()}") from error

    def attach(self, number: int) -> Queued | None:
        """A job that an earlier process has submitted, where it still waits or runs.

        None of those of --cluster=local, which no queue knows: a run that goes on has its run folder, and is an orphan
        to the sweep.
        """
        job_id = self._study.recall(number, "job_id")
        if not job_id or self._executor.cluster != "slurm":
            return None
        job = _submitit().SlurmJob(self._folder, job_id)
        return None if job.done(force_check=True) else Queued(job)


def make_executor(plan: Plan, cluster: str, options: Mapping[str, object]):
    """submitit's executor.

    Raises:
      UserError: the sweep is not for an array; no submitit, no sbatch, or an option that it does not take.
    """
    if plan.sweep.sampler == "tpe":
        raise UserError("sampler='tpe' learns from finished trials, an array is drawn at once: use random or grid")
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(plan.folder / FOLDER, cluster=cluster)
        width = {"slurm_array_parallelism": plan.sweep.workers} if cluster == "slurm" else {}
        common = {"name": plan.name} | width
        executor.update_parameters(**(common | dict(options)))
    except (RuntimeError, TypeError, NameError, ValueError, AssertionError) as error:  # the last: of types
        raise UserError(f"--engine=slurm: {error}") from error
    return executor


def _submitit():
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise UserError("--engine=slurm needs submitit: pip install 'genflow[slurm]'") from error
    return submitit
