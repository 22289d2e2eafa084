"""A parent that outlives one process of several, to say why it ended: JAX ends a process whose peer died by SIGABRT.

No JAX here: the process is forked before JAX has threads.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable

from genflow.errors import UserError

JOIN_SECONDS = 120  # in which all processes must have come together
LOST = (
    "this process ended early, for what is said above or because another one of the run has ended, could not be "
    "reached or has not been heard of for --heartbeat={} s\nwhat was committed to the checkpoints is intact: run the "
    "same command on every host to resume"
)
FAILED = 1  # status of a child whose work raised
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def apart(coordinator: str, num_processes: int, process_id: int) -> str:
    """What the parent says of a child that ended before it had joined the others; arguments as of `hosts.join`."""
    who, where, num = f"process {process_id}", coordinator, f"{num_processes} "
    if coordinator == "auto":
        who, where, num = "this process", "the address that --coordinator=auto finds", ""
    return (
        f"{who} did not join the others at {where}, for what is said above or because they did not all come within "
        f"{JOIN_SECONDS} s\ndo all {num}processes run, is that the address of process 0, is its port open?"
    )


def supervised(work: Callable[[Callable[[], None]], None], unjoined: str, lost: str) -> None:
    """Calls `work` in a child process; the parent waits, passes signals on and ends with the child's status.

    A first SIGTERM or SIGINT reaches the child as SIGTERM, a second one ends it at once. The child does not outlive its
    parent.

    Args:
      work: takes a function, and calls it once it has joined the other processes.
      unjoined: what the parent says of a child that was aborted, or failed, before that.
      lost: what it says of one that was aborted, or failed, later.
    """
    stage = mmap.mmap(-1, 1)  # shared with the child
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the parent can pass them on
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.setpgid(0, 0)  # what a terminal sends reaches the parent alone, which passes it on once
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        _alone(lambda: work(lambda: stage.write(b"1")))
        return
    received = []

    def forward(number, frame):
        received.append(number)  # first of all: the next signal may come while this one is told of
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)
        if len(received) == 1:
            print("stopping after this call; a second signal ends at once", file=sys.stderr, flush=True)

    for number in signals:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (FAILED, -signal.SIGABRT):
        print(f"error: {lost if stage[0] else unjoined}", file=sys.stderr, flush=True)
    os._exit(status if status >= 0 else 128 - status)


def _alone(work):
    """A failure ends this process at once: at a regular exit it would wait for the others, who wait for it."""
    try:
        work()
    except (SystemExit, UserError):
        raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(FAILED)


def _end_with(parent):
    """The kernel kills this process when its parent has gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
