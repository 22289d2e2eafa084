"""A parent that outlives one process of several, to say why it ended: JAX ends a process whose peer died by SIGABRT.

No JAX here: the process is forked before JAX has threads.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

LOST = (
    "another process of this run has ended or has not been heard of for --heartbeat={} s; what was committed to the "
    "checkpoints is intact\nrun the same command on every host again to resume"
)
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def supervised(work: Callable[[], None], lost: str) -> None:
    """Calls `work` in a child process; the parent waits, passes signals on and ends with the child's status.

    A first SIGTERM or SIGINT reaches the child as SIGTERM, a second one ends it at once. The child does not outlive its
    parent.

    Args:
      lost: what the parent says of a child that was aborted.
    """
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.setpgid(0, 0)  # what a terminal sends reaches the parent alone, which passes it on once
        _end_with(parent)
        work()
        return
    received = []

    def forward(number, frame):
        os.kill(child, signal.SIGKILL if received else signal.SIGTERM)
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGABRT:
        print(f"error: {lost}", file=sys.stderr, flush=True)
    os._exit(status if status >= 0 else 128 - status)


def _end_with(parent):
    """The kernel kills this process when its parent has gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
