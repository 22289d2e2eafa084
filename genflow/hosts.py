"""Several hosts: one process each, one program.

Every process runs the same lines, so that none waits for a collective that another skips; what a process other than
the first writes beside the checkpoints goes to a folder that is thrown away.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from genflow.errors import UserError
from genflow.supervisor import JOIN_SECONDS
from genflow.workdir import LOCK_FILE, lock

LAG_SECONDS = 30  # after which a network file system shows everywhere what one process has written
CHUNK = 1024  # bytes: texts of many lengths are gathered by one program


def join(
    coordinator: str, num_processes: int, process_id: int, heartbeat: int, joined: Callable[[], None] = lambda: None
) -> None:
    """Makes this process one of several; must run before anything else touches a device.

    Args:
      coordinator: HOST:PORT of process 0, or 'auto' on Cloud TPU, SLURM and Open MPI, where JAX finds out the rest.
      heartbeat: seconds without a word of a process after which the others end.
      joined: called once all of them have come together.

    Raises:
      UserError: there is no such cluster. Where the others do not come, JAX ends the process.
    """
    known = {} if coordinator == "auto" else {"num_processes": num_processes, "process_id": process_id}
    address = None if coordinator == "auto" else coordinator
    limits = {"heartbeat_timeout_seconds": heartbeat, "initialization_timeout": JOIN_SECONDS}
    try:
        jax.distributed.initialize(address, **known, **limits)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--coordinator={coordinator}: {error}\nauto works on Cloud TPU, in a SLURM step and under mpirun of Open "
            "MPI 4; elsewhere write --coordinator=HOST:PORT --num_processes=N --process_id=I, with a free port of the "
            "host of process 0"
        ) from error
    joined()


def every(value: Any) -> list[Any]:
    """What each process holds, in their order: anything that JSON holds, such as how it sees a file system."""
    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    size = int(np.max(multihost_utils.process_allgather(np.int32(len(text)))))
    padded = text.ljust(-(-size // CHUNK) * CHUNK)  # JSON ends in any number of spaces
    rows = multihost_utils.process_allgather(np.frombuffer(padded, np.uint8))
    return [json.loads(row.tobytes()) for row in rows]


def seen(look: Callable[[], Any]) -> list[Any]:
    """What each process sees of a file system, once it sees what the first saw; a network file system may lag."""
    mine = look()
    first, deadline = every(mine)[0], time.monotonic() + LAG_SECONDS
    while mine != first and time.monotonic() < deadline:
        time.sleep(0.2)
        mine = look()
    return every(mine)


def check_same(what: str, value: str) -> None:
    """Raises UserError where a text is another one on another host: they would compute different things together."""
    values = every(value)
    if others := [i for i, other in enumerate(values) if other != values[0]]:
        raise UserError(
            f"process {others[0]} has another {what} than process 0: run the same command, with the same revision, on "
            "every host"
        )


def check_shared(workdir: pathlib.Path) -> None:
    """Raises UserError where a process does not see the run folder that the first one has locked."""
    views = seen(lambda: _holder(workdir))
    if blind := [i for i, view in enumerate(views) if view != views[0]]:
        raise UserError(
            f"process {blind[0]} does not see the run folder of process 0: --workdir={workdir} must be a folder that "
            "all hosts share"
        )


def _holder(workdir):
    """What the process that has locked a run folder has written there of itself."""
    path = workdir / LOCK_FILE
    return path.read_text("utf-8", errors="replace") if path.exists() else ""


def on_first(context: contextlib.AbstractContextManager) -> contextlib.AbstractContextManager:
    """The context on the first process, nothing on the others."""
    return context if jax.process_index() == 0 else contextlib.nullcontext()


@contextlib.contextmanager
def output_folder(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The run folder, locked, for the first process; for the others a temporary one."""
    if jax.process_index() == 0:
        with lock(workdir):
            yield workdir
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder)


def to_host(array: jax.Array) -> np.ndarray:
    """The whole of an array whose parts may lie on other hosts; every process must call it."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


class Interruptions:
    """SIGTERM and SIGINT of this process, or of any of several, which then all stop after the same call."""

    def __init__(self):
        self._received: list[int] = []
        self._calls = 0

    def note(self, number: int, frame=None) -> None:
        """Handles a signal; a second one ends the process at once."""
        if self._received:
            os._exit(128 + number)
        self._received.append(number)
        print("stopping after this call; a second signal ends at once", file=sys.stderr, flush=True)

    def agreed(self) -> int:
        """The number of the signal after which to stop now, or 0; every process asks after every call."""
        self._calls += 1
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._calls):
            return signal.SIGTERM
        return self._received[0] if self._received else 0


@contextlib.contextmanager
def interruptible() -> Iterator[Interruptions]:
    """Takes SIGTERM and SIGINT until the end of the with-block; of several processes, JAX has taken SIGTERM before."""
    interruptions = Interruptions()
    if jax.process_count() > 1:
        try:
            yield interruptions
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    old = {number: signal.signal(number, interruptions.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruptions
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
