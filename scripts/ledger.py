"""Keeps the results ledger: results/*.json, docs/results.md and the table of models in README.md.

Examples:
    python scripts/ledger.py                  write the tables
    python scripts/ledger.py --check          exit with status 1 where they are out of date
    python scripts/ledger.py add runs/glow_cifar10 --status=reproduced --paper_value=3.35 --paper_source="table 2"
    python scripts/ledger.py add_outliers runs/hvae_fashion_mnist/outliers_mnist.json --paper_auroc=0.984
    python scripts/ledger.py add_classifier runs/jem_digits/classifier.json
"""

import argparse
import sys
from pathlib import Path

from genflow import ledger
from genflow.cli import ROOT
from genflow.errors import UserError


def main() -> int:
    """Parses the command line, runs it and returns the exit status."""
    arguments = parser().parse_args()
    if arguments.check:
        stale = ledger.stale(ROOT)
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `python scripts/ledger.py`", file=sys.stderr)
        return int(bool(stale))
    if arguments.action == "add":
        fields = {name: value for name, value in vars(arguments).items() if name not in ("action", "check", "run")}
        print(ledger.add(arguments.run, ROOT / "results", **fields))
    if arguments.action == "add_outliers":
        fields = {name: value for name, value in vars(arguments).items() if name not in ("action", "check", "file")}
        print(ledger.add_outliers(arguments.file, ROOT / "results", **fields))
    if arguments.action == "add_classifier":
        fields = {name: value for name, value in vars(arguments).items() if name not in ("action", "check", "file")}
        print(ledger.add_classifier(arguments.file, ROOT / "results", **fields))
    for path in ledger.write(ROOT):
        print(path)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the tables are out of date")
    actions = parser.add_subparsers(dest="action")
    add = actions.add_parser("add", help="copy the record of a run into the ledger")
    add.add_argument("run", type=Path, help="the run folder")
    add.add_argument("--status", required=True, choices=ledger.STATUSES, help="see docs/results.md")
    add.add_argument("--paper_value", type=float, help="the published figure, in the unit of the run")
    add.add_argument("--paper_source", default="", help="where it stands (the experiment's Paper: line)")
    add.add_argument("--note", default="", help="one sentence for the reader of the table")
    add.add_argument("--name", default="", help="of the file in results/ (the experiment's name)")
    add.add_argument("--figure", default="", help="of a model without a likelihood: a line of its diagnostics")
    add.add_argument("--allow_changes", action="store_true", help="take a run of source that is not committed")
    outliers = actions.add_parser("add_outliers", help="copy what scripts/detect_outliers.py wrote into the ledger")
    outliers.add_argument("file", type=Path, help="outliers_NAME.json in a run folder")
    outliers.add_argument("--paper_auroc", type=float, help="the published figure")
    outliers.add_argument("--note", default="", help="one sentence for the reader of the table")
    outliers.add_argument("--allow_changes", action="store_true", help="take a run of source that is not committed")
    classifier = actions.add_parser("add_classifier", help="copy what scripts/evaluate_classifier.py wrote")
    classifier.add_argument("file", type=Path, help="classifier.json in a run folder")
    classifier.add_argument("--note", default="", help="one sentence for the reader of the table")
    classifier.add_argument("--name", default="", help="of the file in results/ (the experiment's name)")
    classifier.add_argument("--allow_changes", action="store_true", help="take a run of source that is not committed")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
