"""Runs a command that ends when its parent does: python -P leash.py PARENT_PID COMMAND WORD ...

A sweep that is killed with SIGKILL cannot end its trials itself. Linux then sends each of them SIGTERM, on which a run
saves a checkpoint. Elsewhere a trial goes on, and the sweep that is resumed waits for its run folder. A queue that
warns a job of its end signals all processes of it: that is for the job to answer, and ends no trial. A file of its own
without other imports, so that nothing is loaded twice.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2); kept across execve
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # ignored signals stay so across execve


def main(parent: int, command: list[str]) -> None:
    """Replaces this process by the command."""
    for number in WARNINGS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before the line above
            sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
