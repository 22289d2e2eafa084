"""Log evidence of a trained latent variable model, by variational inference and by Markov chains, on the same examples.

Examples:
    python scripts/estimate_evidence.py --workdir=runs/vae_mnist --num=100 --chains=16 --steps=1000
    python scripts/estimate_evidence.py --workdir=runs/vae_digits --num=50 --nuts=3 --simulated=20
"""

import argparse
import sys

from genflow import cli
from genflow.analysis.evidence import SCHEDULES, Annealing
from genflow.errors import UserError
from genflow.estimate import Question, estimate_run


def main() -> None:
    """Parses the command line and runs it."""
    given = parser().parse_args()
    annealing = Annealing(given.chains, given.steps, given.leapfrog, given.schedule)
    sizes = given.num, given.split, given.importance_samples, annealing, given.nuts, given.nuts_draws, given.simulated
    estimate_run(given.workdir, Question(*sizes, given.batch_size, given.seed), cli.defaults())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run folder; evidence.json goes there")
    parser.add_argument("--num", type=int, default=100, help="examples, evenly spaced in the part")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--importance_samples", type=int, default=1000, help="draws of q(z | x): ELBO and IWAE bound")
    parser.add_argument("--chains", type=int, default=16, help="of AIS, for each example; two at least")
    parser.add_argument("--steps", type=int, default=1000, help="temperatures between prior and posterior")
    parser.add_argument("--leapfrog", type=int, default=10, help="steps of a Hamiltonian trajectory")
    parser.add_argument("--schedule", default="sigmoid", choices=SCHEDULES, help="of the temperatures")
    parser.add_argument("--nuts", type=int, default=0, help="sample p(z | x) of so many examples, beside q(z | x)")
    parser.add_argument("--nuts_draws", type=int, default=500, help="of each of four chains, and as many to adapt")
    parser.add_argument("--simulated", type=int, default=0, help="bound log p(x) of so many drawn x from both sides")
    batch_size = "examples at once; in memory are so many times --chains, or times eval.samples_per_call of the run"
    parser.add_argument("--batch_size", type=int, default=50, help=batch_size)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
