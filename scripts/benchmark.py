"""Times genflow beside other systems, each in a process of its own, taking turns.

Examples:
    python scripts/benchmark.py --suite=core --json=core.json
    python scripts/benchmark.py --quick
    python scripts/benchmark.py --width=512 --depths=32 --rounds=3
    python scripts/benchmark.py --suite=flows --parts=maf_train,spline_train
    python scripts/benchmark.py --suite=autoregressive
    python scripts/benchmark.py --suite=latent
    python scripts/benchmark.py --suite=diffusion
    python scripts/benchmark.py --suite=energy
    python scripts/benchmark.py --suite=scale --parts=collectives

The peers take part where --peer_python or $GENFLOW_PEER_PYTHON names the Python of an environment that has them:
    python3.11 -m venv ~/peer && ~/peer/bin/pip install torch==2.13.0 normflows==1.7.3 numpy
    ~/peer/bin/pip install diffusers==0.42.1  # for --suite=diffusion
    ~/peer/bin/pip install nflows==0.14 zuko==1.6.0 flowjax==19.1.2  # for --suite=flows
    python scripts/benchmark.py --peer_python=~/peer/bin/python

Columns of the tables:
"""

import argparse
import json
import os
import sys
from pathlib import Path

from genflow.benchmark import (
    autoregressive_suite,
    core_suite,
    diffusion_suite,
    energy_suite,
    flows_suite,
    latent_suite,
    scale_suite,
)
from genflow.errors import UserError

SUITES = {
    "core": (core_suite.Sizes(), core_suite.QUICK, core_suite.run),
    "flows": (flows_suite.Sizes(), flows_suite.QUICK, flows_suite.run),
    "autoregressive": (autoregressive_suite.Sizes(), autoregressive_suite.QUICK, autoregressive_suite.run),
    "latent": (latent_suite.Sizes(), latent_suite.QUICK, latent_suite.run),
    "diffusion": (diffusion_suite.Sizes(), diffusion_suite.QUICK, diffusion_suite.run),
    "energy": (energy_suite.Sizes(), energy_suite.QUICK, energy_suite.run),
    "scale": (scale_suite.Sizes(), scale_suite.QUICK, scale_suite.run),
}
WITH_PARTS = {
    name: suite.PARTS
    for name, suite in (
        ("flows", flows_suite),
        ("autoregressive", autoregressive_suite),
        ("latent", latent_suite),
        ("diffusion", diffusion_suite),
        ("energy", energy_suite),
        ("scale", scale_suite),
    )
}
PARTS = "of --suite=" + "; ".join(f"{name}: {', '.join(parts)}" for name, parts in WITH_PARTS.items())
SIZES = ("parts", "depths", "memory", "width", "widths", "rounds", "steps")


def main(command: list[str]) -> None:
    """Parses the command line, measures, prints the tables and writes the figures."""
    arguments = parser().parse_args(command)
    full, quick, run = SUITES[arguments.suite]
    sizes = quick if arguments.quick else full
    given = {name: getattr(arguments, name) for name in SIZES if getattr(arguments, name) is not None}
    if strange := [name for name in given if name not in sizes._fields]:
        raise UserError(f"--{strange[0]} is not for --suite={arguments.suite}")
    sizes = sizes._replace(**given)
    result = run(sizes, os.path.expanduser(arguments.peer_python))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {arguments.json}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    text = __doc__ + "".join(f"    {name:<10} {meaning}\n" for name, meaning in flows_suite.COLUMNS.items())
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="core", help="what to measure")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and few parts unless --parts: does it run?")
    parser.add_argument("--parts", type=words, help=PARTS)
    parser.add_argument("--depths", type=depths, help="K of the Glow steps (core: 8,16,32; flows: 8,32)")
    parser.add_argument("--memory", type=words, help="our modes (store,remat,invert)")
    parser.add_argument("--width", type=positive, help="hidden channels, --suite=core (128)")
    parser.add_argument("--widths", type=depths, help="hidden channels, --suite=flows (128,512)")
    parser.add_argument("--rounds", type=positive, help="turns of every contestant (5)")
    parser.add_argument("--steps", type=positive, help="steps in a turn (4)")
    parser.add_argument("--peer_python", default=os.environ.get("GENFLOW_PEER_PYTHON", ""), help="see above")
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def words(text: str) -> list[str]:
    """'a,b' as ['a', 'b']."""
    return text.split(",")


def depths(text: str) -> list[int]:
    """'8,16' as [8, 16]."""
    return [positive(word) for word in text.split(",")]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
