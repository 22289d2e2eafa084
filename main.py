"""Trains, scores and samples generative models: python main.py --config=configs/NAME.py (see --help)."""

import sys

from absl import app, logging

from genflow import cli
from genflow.errors import UserError


def parse_flags(argv):
    """Absl's flags_parser: help and bad input are answered here, before JAX is imported."""
    if {"--help", "-h", "--helpfull", "-help"} & set(argv[1:]):
        print(cli.help_text())
        sys.exit(0)
    try:
        return [argv[0], cli.parse(argv)]
    except UserError as error:
        fail(error)


def main(arguments):
    """Dispatches on --mode."""
    config = arguments[1]
    flags = cli.FLAGS
    if flags.list_configs:
        print(cli.list_configs())
        return
    logging.set_verbosity(logging.WARNING)  # orbax and JAX tell their internals at the level of information
    try:
        from configs import common
        from genflow import train, use

        if flags.mode == "train":
            train.train(config, flags.workdir, common.RESUMABLE)
        elif flags.mode == "eval":
            use.evaluate_run(flags.workdir, flags.seed)
        else:
            use.sample_run(flags.workdir, flags.num, flags.temperature, flags.seed)
    except UserError as error:
        fail(error)
    except train.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_status)


def fail(error):
    """Prints one sentence and leaves with status 2."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
