"""Compares the likelihoods of a trained diffusion run: variational bound, importance weighting, probability flow.

Prints each with its standard errors, what kind of number it is and how many network calls it took; writes bounds.json
into the run folder.

Examples:
    python scripts/compare_bounds.py --workdir=runs/ddpm_digits
    python scripts/compare_bounds.py --workdir=runs/vdm_digits --num=100 --tolerances=1e-2,1e-4 --samples=64
"""

import argparse
import sys

from genflow import cli
from genflow.errors import UserError


def main() -> None:
    """Parses the command line and runs it."""
    given = parser().parse_args()
    from genflow.bounds import Question, compare_bounds  # JAX is imported only for a command line that can be read

    sizes = given.samples, given.repeats, given.batch_size, given.seed
    question = Question(given.num, given.split, given.tolerances, *sizes)
    compare_bounds(given.workdir, question, cli.defaults(), given.json)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run folder; bounds.json goes there")
    parser.add_argument("--num", type=int, default=200, help="examples, evenly spaced in the part")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--tolerances", type=numbers, default=(1e-3, 1e-5), help="of the flow's solver (1e-3,1e-5)")
    parser.add_argument("--samples", type=int, default=16, help="whole chains, and random times, of each example")
    parser.add_argument("--repeats", type=int, default=2, help="draws of the noise in the sum of terms and the flow")
    parser.add_argument("--batch_size", type=int, default=50, help="examples at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    return parser


def numbers(text: str) -> tuple[float, ...]:
    """'1e-3,1e-5' as (0.001, 1e-05)."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
