"""Runs a contestant on a few cores: they are chosen before it imports a framework, which counts them.

Usage: python -m genflow.benchmark.pinned CORES (MODULE | FILE.py) ARGUMENT..., where 0 cores are all.
"""

import os
import runpy
import sys


def main(cores: int, program: str) -> None:
    """Runs the program as its own command would; on systems without affinities it has all cores."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    main(int(sys.argv.pop(0)), sys.argv[0])
