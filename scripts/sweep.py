"""Runs many trials of an experiment and tells which values did best on the validation part; see docs/sweeps.md.

The same command goes on with a sweep that was stopped or killed.

Examples:
    python scripts/sweep.py configs/sweeps/glow_lr.py
    python scripts/sweep.py configs/sweeps/glow_lr.py --workers=4 --devices=0,1,2,3
    python scripts/sweep.py configs/sweeps/glow_lr.py --report
    python scripts/sweep.py configs/sweeps/glow_lr.py --engine=ray --ray_address=auto --resources=gpu=1
    python scripts/sweep.py configs/sweeps/vae_widths.py --engine=slurm --slurm=timeout_min=60 --slurm=gpus_per_node=1
"""

import argparse
import sys

from genflow.errors import UserError


def main() -> None:
    """Parses the command line and runs it."""
    arguments = parser().parse_args()
    from genflow.sweep import driver, run  # Optuna is imported only for a command line that can be read

    place = run.Place(
        arguments.engine,
        arguments.devices,
        arguments.ray_address,
        {"cpu": 1} | run.amounts(arguments.resources, "--resources"),
        arguments.cluster,
        run.options(arguments.slurm, "--slurm"),
    )
    try:
        if arguments.check:
            print(run.check_sweep(arguments.file))
        elif arguments.report:
            run.report_sweep(arguments.file, arguments.workdir)
        else:
            run.run_sweep(arguments.file, arguments.workdir, arguments.workers, place)
    except driver.Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_status)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="defines get_sweep(); see configs/sweeps")
    parser.add_argument("--workdir", default="", help="the sweep's folder; runs/sweeps/NAME without")
    parser.add_argument("--workers", type=positive, default=0, help="trials at a time; as the file says without")
    parser.add_argument("--report", action="store_true", help="print and draw what is known, run nothing")
    parser.add_argument("--check", action="store_true", help="build the experiment's data and model, run nothing")
    parser.add_argument("--devices", default="auto", help="local: 0,1,2,3 is cut among the workers; auto; none: cores")
    parser.add_argument("--engine", choices=("local", "ray", "slurm"), default="local", help="where trials run")
    parser.add_argument("--ray_address", default="", help="ray: of a cluster, or auto; without: one on this machine")
    parser.add_argument("--resources", action="append", default=[], help="ray: of a trial, cpu=N or gpu=N; repeatable")
    parser.add_argument("--cluster", choices=("slurm", "local", "debug"), default="slurm", help="slurm: submitit's")
    parser.add_argument("--slurm", action="append", default=[], help="slurm: NAME=VALUE of submitit; repeatable")
    return parser


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
