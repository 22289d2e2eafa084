"""Compares samplers of a trained diffusion run: distances of their samples to the training data against network calls.

Prints the sliced Wasserstein distance and, for data with labels, the Fréchet distance of a small classifier's features;
writes samplers.json and samplers.png into the run folder. See docs/samplers.md.

Examples:
    python scripts/compare_samplers.py --workdir=runs/ddpm_digits
    python scripts/compare_samplers.py --workdir=runs/ddpm_digits --samplers=ddim,heun:karras --calls=10,20,100
"""

import argparse
import sys

from genflow import cli
from genflow.errors import UserError

SAMPLERS = "ddim,ddim:quadratic,dpm_solver_pp_2m:log_snr,heun:karras,probability_flow:karras,ancestral,reverse_sde"


def main() -> None:
    """Parses the command line and runs it."""
    arguments = parser().parse_args()
    from genflow.quality import compare_samplers  # JAX is imported only for a command line that can be read

    compare_samplers(
        arguments.workdir, arguments.samplers, arguments.calls, arguments.num, arguments.seed, cli.defaults()
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run folder")
    parser.add_argument(
        "--samplers", type=words, default=words(SAMPLERS), help=f"NAME or NAME:SPACING, ... ({SAMPLERS})"
    )
    parser.add_argument("--calls", type=numbers, default=[5, 10, 20, 50, 100], help="network calls (5,10,20,50,100)")
    parser.add_argument("--num", type=int, default=2000, help="samples of each")
    parser.add_argument("--seed", type=int, default=0, help="of the samples, the projections and the classifier")
    return parser


def words(text: str) -> list[str]:
    """'a,b' as ['a', 'b']."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """'8,16' as [8, 16]."""
    try:
        return [int(word) for word in words(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
