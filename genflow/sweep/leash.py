"""Runs a command that ends when its parent does: python -P leash.py PARENT_PID COMMAND WORD ...

A sweep that is killed with SIGKILL cannot end its trials itself. Linux then ends this process, and sends the command
SIGTERM, on which a run saves a checkpoint: once, for this process has one thread. Threads of a parent end one after
the other, and the signal may come again with each. Elsewhere a trial goes on, and the sweep that is resumed waits for
its run folder.

A queue that warns a job of its end signals all processes of it: that is for the job to answer, and ends no trial.

A file of its own without other imports, so that nothing is loaded twice.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2); kept across execve
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # ignored signals stay so across execve


def main(parent: int, command: list[str]) -> int:
    """Returns the exit status of the command, as a shell has it."""
    for number in WARNINGS:
        signal.signal(number, signal.SIG_IGN)
    tie(parent, signal.SIGKILL)
    leash = os.getpid()
    child = os.fork()
    if not child:
        tie(leash, signal.SIGTERM)
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # goes to both, and is for the command to answer
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - status if status < 0 else status


def tie(parent: int, number: int) -> None:
    """Has this process receive a signal when its parent ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it ended before the line above
            sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
