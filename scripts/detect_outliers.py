"""Tells another data set from a run's own by the scores of its trained model.

Prints AUROC, AUPRC and FPR80 of each score, and writes outliers_NAME.json and outliers_NAME.png into the run folder;
see docs/outliers.md.

Examples:
    python scripts/detect_outliers.py --workdir=runs/hvae_fashion_mnist --outliers=mnist
    python scripts/detect_outliers.py --workdir=runs/vae_mnist --outliers=fashion_mnist --lower=draw
    python scripts/detect_outliers.py --workdir=runs/glow_cifar10 --outliers=svhn_cropped --num=1000
"""

import argparse
import sys

from genflow import cli
from genflow.errors import UserError


def main() -> None:
    """Parses the command line and runs it."""
    arguments = parser().parse_args()
    from genflow.detect import detect_run  # JAX is imported only for a command line that can be read

    detect_run(
        arguments.workdir,
        arguments.outliers,
        arguments.num,
        arguments.seed,
        arguments.samples,
        arguments.samples_above,
        arguments.resamples,
        arguments.lower,
        cli.defaults(),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run folder")
    parser.add_argument("--outliers", required=True, help="a data set, named as in config.data.name")
    parser.add_argument("--num", type=int, default=0, help="examples of each set; 0: as many as the smaller one has")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the bootstrap")
    parser.add_argument("--samples", type=int, default=1, help="draws in the log-mean-exp of the bound L")
    parser.add_argument("--samples_above", type=int, default=1, help="draws in that of each L>k")
    parser.add_argument("--lower", default="mode", choices=("mode", "draw"), help="of p: the k lowest levels in L>k")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
