"""Says what a train step needs on a machine that is not there: memory, work, communication, time at the roofline.

Examples:
    python scripts/plan.py --config=configs/glow_celebahq256.py --topology=v5e:16x16
    python scripts/plan.py --config=configs/ddpm_cifar10.py --config.data.batch_size=512 --largest_batch
    python scripts/plan.py --config=configs/glow_digits.py --topology=cpu:8 --json=plan.json
    python scripts/plan.py --all              every experiment on the slice that its docstring names; resumes
    python scripts/plan.py --check            exit with status 1 where docs/preflight.md and its record differ
"""

import argparse
import json
import os
import pathlib
import resource
import sys

from genflow import cli
from genflow.errors import UserError
from genflow.plan import every, page, topology

CPU_MINUTES = 10.0


def main() -> int:
    """Parses the command line, runs it and returns the exit status."""
    overrides, words = cli.split_overrides(sys.argv[1:])
    arguments = parser().parse_args(words)
    if arguments.check or arguments.all or len(arguments.config) > 1:
        return many(arguments, overrides)
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        raise UserError(f"--json={arguments.json}: there is no folder {arguments.json.absolute().parent}")
    name = (arguments.config or [cli.DEFAULT_CONFIG])[0]
    if arguments.cpu_minutes:
        seconds = int(60 * arguments.cpu_minutes)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    config = cli.load_config(name, overrides)
    where = topology.parse(arguments.topology or every.slice_of(cli.find_config(name)[0]))
    os.environ.update(topology.environment(where, arguments.quick))  # before JAX is imported
    from genflow.plan import preflight

    plan = preflight.plan(config, where.name, arguments.largest_batch, arguments.quick)
    print(page.report(plan))
    if arguments.json:
        arguments.json.write_text(json.dumps(plan, indent=1, allow_nan=False) + "\n")
    return 0


def many(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """--check, --all, several --config."""
    if arguments.check:
        if stale := page.is_stale(cli.ROOT):
            print(f"{page.PAGE} is out of date: run `python scripts/plan.py --all`", file=sys.stderr)
        return int(stale)
    if overrides or arguments.json or arguments.largest_batch:
        raise UserError("--config.KEY=VALUE, --json and --largest_batch are for one --config and no --all")
    if arguments.topology:
        raise UserError("--topology is for one --config: the page holds each experiment on the slice that it names")
    names = [f"configs/{path.name}" for path in cli.config_files()] if arguments.all else arguments.config
    limits = arguments.cpu_minutes or CPU_MINUTES, arguments.quick
    every.plan_all(cli.ROOT, names, arguments.topology, *limits)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line; --config.KEY=VALUE changes a value of the configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", default=[], help="configs/NAME.py[:debug]; several: as --all")
    parser.add_argument("--topology", default="", help="v5e:4x4, v5p:2x2x1, cpu:8, gpu, ... (the experiment's Slice:)")
    parser.add_argument("--largest_batch", action="store_true", help="look for it: compiles several times")
    parser.add_argument("--quick", action="store_true", help="the compiler takes less trouble: no memory traffic")
    parser.add_argument("--json", type=pathlib.Path, help="write the plan there")
    parser.add_argument("--all", action="store_true", help=f"every experiment, into {page.RECORD} and {page.PAGE}")
    parser.add_argument("--check", action="store_true", help="only say whether the page is out of date")
    limit = f"of a CPU that a plan may take; 0: no limit, with --all {CPU_MINUTES:g}"
    parser.add_argument("--cpu_minutes", type=float, default=0.0, help=limit)
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
