"""Trials as processes of this machine, each in a slot with its share of the accelerators or cores."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from genflow.errors import UserError
from genflow.sweep import leash

MEMORY_SHARE = 0.9  # of an accelerator that several trials have in common
GRACE = 60.0  # seconds for a run to save its checkpoint
PAUSE = 0.2  # seconds between looks at processes that are to end


class Handle(Protocol):
    """A started trial, wherever it runs."""

    def poll(self) -> int | None:
        """The exit status; None while it waits or runs."""

    def stop(self) -> None:
        """Asks it to save and end."""

    def kill(self) -> None:
        """Ends it at once."""


def end(handles: Sequence[Handle], seconds: float = GRACE) -> None:
    """Lets what still runs save and end; kills what does not within `seconds`."""
    for handle in handles:
        handle.stop()
    last = time.monotonic() + seconds
    while any(handle.poll() is None for handle in handles) and time.monotonic() < last:
        time.sleep(PAUSE)
    for handle in handles:
        handle.kill()


class Job(NamedTuple):
    """A trial that is to run."""

    number: int
    command: list[str]
    cwd: str
    log: pathlib.Path


class Process:
    """A running trial."""

    def __init__(self, job: Job, environment: Mapping[str, str] = {}):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        leashed = [sys.executable, "-P", leash.__file__, str(os.getpid()), *job.command]
        with job.log.open("ab") as log:
            # Its own session: Ctrl-C reaches the sweep alone, which then ends its trials one by one.
            self._child = subprocess.Popen(
                leashed,
                cwd=job.cwd,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._child.poll()

    def stop(self) -> None:
        """Asks the trial and whatever it has started to end; a run saves a checkpoint first."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends them at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number):
        if self._child.poll() is None:
            try:
                os.killpg(self._child.pid, number)
            except ProcessLookupError:
                pass


class Slots:
    """Starts trials in slots, one for each worker."""

    def __init__(self, environments: Sequence[Mapping[str, str]]):
        self.capacity = len(environments)
        self._environments = environments
        self._processes: list[Process | None] = [None] * self.capacity

    def start(self, jobs: Sequence[Job]) -> list[Process]:
        """Runs at most as many jobs as there are free slots."""
        free = [i for i, process in enumerate(self._processes) if process is None or process.poll() is not None]
        for i, job in zip(free, jobs, strict=False):
            self._processes[i] = Process(job, self._environments[i])
        return [self._processes[i] for i in free[: len(jobs)]]

    def attach(self, number: int) -> None:
        """Of a trial that an earlier process has started: nothing is left of it, but for an orphan."""


def environments(workers: int, devices: str, inherited: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """What the environment of each worker adds: its accelerators, or its share of the cores.

    Args:
      devices: '0,1,2,3': cut evenly among the workers; a device named twice is shared by two; 'auto': those that
        CUDA_VISIBLE_DEVICES or nvidia-smi names, shared where there are fewer than workers, a remainder left idle;
        'none': cores.

    Raises:
      UserError: devices were named that cannot be cut into as many equal parts as there are workers.
    """
    found = visible_devices(inherited) if devices == "auto" else devices.split(",") if devices != "none" else []
    if not found:
        return [_threads(workers, inherited) for _ in range(workers)]
    if devices == "auto":
        found = [found[i % len(found)] for i in range(max(workers, len(found) // workers * workers))]
    if len(found) % workers:
        raise UserError(
            f"--devices={','.join(found)}: {len(found)} cannot be cut evenly among {workers} workers; "
            f"set --workers, or name a device as often as it is shared: --devices={','.join(found[:1] * workers)}"
        )
    size = len(found) // workers
    return [_devices(found[i * size : (i + 1) * size], found) for i in range(workers)]


def visible_devices(inherited: Mapping[str, str]) -> list[str]:
    """The NVIDIA devices that a process of this environment may use."""
    if inherited.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in inherited:
        return [word for word in inherited["CUDA_VISIBLE_DEVICES"].split(",") if word]
    if not (tool := shutil.which("nvidia-smi")):
        return []
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def _devices(own, found):
    share = max(found.count(device) for device in own)
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY_SHARE / share:.3f}"} if share > 1 else {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)} | memory


def _threads(workers, inherited):
    """XLA takes a thread for each core that it thinks there is; a mesh of fake devices needs one for each of them."""
    if workers == 1 or "host_platform_device_count" in inherited.get("XLA_FLAGS", ""):
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = str(max(cores // workers, 1))
    return {name: share for name in ("NPROC", "OMP_NUM_THREADS") if name not in inherited}
