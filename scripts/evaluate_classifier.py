"""Evaluates runs that classify, side by side: accuracy, calibration, detection of outliers, attacks.

Prints a table, writes classifier.json into each run folder and classifier.png into the first; see docs/classifiers.md.

Examples:
    python scripts/evaluate_classifier.py --workdir=runs/jem_digits
    python scripts/evaluate_classifier.py --workdir=runs/jem_mnist,runs/wrn_mnist --outliers=fashion_mnist
    python scripts/evaluate_classifier.py --workdir=runs/jem_cifar10 --epsilons=2/255,8/255 --attacked=200
"""

import argparse
import fractions
import sys

from genflow import cli
from genflow.errors import UserError


def main() -> None:
    """Parses the command line and runs it."""
    given = parser().parse_args()
    from genflow.classify import Question, evaluate_classifiers  # JAX is imported only for a line that can be read

    question = Question(
        outliers=tuple(filter(None, given.outliers.split(","))),
        epsilons={"linf": given.epsilons, "l2": given.epsilons_l2},
        num_bins=given.bins,
        num_resamples=given.resamples,
        **{name: getattr(given, name) for name in ("num", "attacked", "num_steps", "restarts", "seed")},
    )
    evaluate_classifiers(given.workdir.split(","), question, cli.defaults())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="run folders with commas between them")
    parser.add_argument("--outliers", default="", help="data sets, named as in config.data.name, with commas between")
    parser.add_argument("--num", type=int, default=0, help="test examples, evenly spaced; 0: all")
    parser.add_argument(
        "--epsilons",
        type=radii,
        default="0.01,0.02,0.05,0.1,0.2,0.3",
        help="radii of L-infinity attacks with data scaled to 0 to 1, such as 0.1,8/255; empty: none (%(default)s)",
    )
    parser.add_argument("--epsilons_l2", type=radii, default="0.1,0.25,0.5,1,1.5,2", help="of L2 attacks (%(default)s)")
    parser.add_argument("--attacked", type=int, default=500, help="examples under attack; 0: all (500)")
    parser.add_argument("--num_steps", type=int, default=20, help="of an attack (20)")
    parser.add_argument("--restarts", type=int, default=1, help="random starts of an attack (1)")
    parser.add_argument("--bins", type=int, default=15, help="of confidence (15)")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of attacks and of the bootstrap")
    return parser


def radii(text: str) -> tuple[float, ...]:
    """'0.1,8/255' as (0.1, 0.0314), '' as ()."""
    try:
        return tuple(float(fractions.Fraction(word)) for word in text.split(",") if word)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
