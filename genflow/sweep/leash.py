"""Runs a command that ends when its parent does: python -P leash.py PARENT_PID COMMAND WORD ...

A sweep that is killed with SIGKILL cannot end its trials itself. Linux then sends each of them SIGTERM, on which a run
saves a checkpoint. Elsewhere a trial goes on, and the sweep that is resumed waits for its run folder. A file of its own
without other imports, so that nothing is loaded twice.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2); kept across execve


def main(parent: int, command: list[str]) -> None:
    """Replaces this process by the command."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before the line above
            sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
