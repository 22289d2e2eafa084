"""Scores finished runs with networks in float32, TensorFloat32 and bfloat16, on the same examples with the same noise.

Prints for each run the score of its test part, the difference to float32 with its standard error, the largest of an
example, and of bijections how far decode(encode(x)) is from x. A CPU has no TensorFloat32: there it is emulated. See
docs/precision.md, whose table --write brings up to date with results/precision_*.json.

Examples:
    python scripts/measure_precision.py runs/glow_digits runs/vdm_digits
    python scripts/measure_precision.py runs/glow_digits --json=results/precision_glow_digits.json
    python scripts/measure_precision.py --write
    python scripts/measure_precision.py --check
"""

import argparse
import pathlib
import sys

from genflow import cli
from genflow.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    """Parses the command line and runs it."""
    arguments = parser().parse_args()
    if not (arguments.runs or arguments.write or arguments.check):
        raise UserError("name the folder of a run, or give --write or --check")
    from genflow.benchmark import precision  # JAX is imported only for a command line that can be read

    if arguments.runs:
        precision.measure(arguments.runs, cli.defaults(), arguments.json)
    if (arguments.write or arguments.check) and precision.write_page(ROOT, arguments.check):
        print(
            "docs/precision.md " + ("is not what results/ says: run it with --write" if arguments.check else "written")
        )
        sys.exit(int(arguments.check))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--json", metavar="FILE", default="", help="where the record is written, beside the table")
    parser.add_argument("--write", action="store_true", help="bring the table of docs/precision.md up to date")
    parser.add_argument("--check", action="store_true", help="exit with 1 where that table is not up to date")
    return parser


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
