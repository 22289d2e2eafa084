"""Compares runs on one page: a table to sort, curves over each other, the fields of config that differ.

Takes run folders, folders of runs and folders of sweeps; unfinished runs are shown with what they have. The page is one
file that needs no network; see docs/watching.md.

Examples:
    python scripts/compare.py runs
    python scripts/compare.py runs/glow_digits* --output=glow.html
"""

import argparse
import sys

from genflow.errors import UserError


def main() -> None:
    """Parses the command line and runs it."""
    arguments = parser().parse_args()
    from genflow.goodput import read_goodput
    from genflow.metrics import read_rows  # Matplotlib is imported only for a command that can be read
    from genflow.report.compare import write_comparison
    from genflow.report.runs import find_runs, read_runs

    runs = read_runs(find_runs(arguments.runs), read_rows, read_goodput)
    print(write_comparison(runs, arguments.output))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a folder of runs")
    parser.add_argument("--output", default="compare.html", help="the page")
    return parser


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
