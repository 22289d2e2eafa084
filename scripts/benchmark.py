"""Times genflow beside other systems, each in a process of its own, taking turns.

Examples:
    python scripts/benchmark.py --suite=core --json=core.json
    python scripts/benchmark.py --quick
    python scripts/benchmark.py --width=512 --depths=32 --rounds=3

normflows takes part where --peer_python or $GENFLOW_PEER_PYTHON names the Python of an environment that has it:
    python3.11 -m venv ~/peer && ~/peer/bin/pip install torch==2.13.0 normflows==1.7.3 numpy
    python scripts/benchmark.py --peer_python=~/peer/bin/python

Columns of the Glow tables:
"""

import argparse
import json
import os
import sys
from pathlib import Path

from genflow.benchmark import core_suite
from genflow.errors import UserError

SUITES = {"core": (core_suite.Sizes(), core_suite.QUICK, core_suite.run)}


def main(words: list[str]) -> None:
    """Parses the command line, measures, prints the tables and writes the figures."""
    arguments = parser().parse_args(words)
    full, quick, run = SUITES[arguments.suite]
    sizes = quick if arguments.quick else full
    given = {name: getattr(arguments, name) for name in ("depths", "memory", "width", "rounds", "steps")}
    sizes = sizes._replace(**{name: value for name, value in given.items() if value is not None})
    result = run(sizes, os.path.expanduser(arguments.peer_python))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {arguments.json}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    text = __doc__ + "".join(f"    {name:<8} {meaning}\n" for name, meaning in core_suite.COLUMNS.items())
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="core", help="what to measure")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--depths", type=depths, help="K of the Glow steps (8,16,32)")
    parser.add_argument("--memory", type=lambda text: text.split(","), help="our modes (store,remat,invert)")
    parser.add_argument("--width", type=positive, help="hidden channels (128)")
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


def depths(text: str) -> list[int]:
    """'8,16' as [8, 16]."""
    return [positive(word) for word in text.split(",")]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
