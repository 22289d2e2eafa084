"""Trains, scores and samples generative models: python main.py --config=configs/NAME.py (see --help)."""

import os
import sys
import time

from absl import app, logging

from genflow import cli
from genflow.errors import UserError
from genflow.supervisor import LOST, apart, supervised

STARTED = time.monotonic()


def parse_flags(argv):
    """For absl's app.run: help and bad input are answered here, before JAX is imported."""
    if any(word == "-h" or word.startswith(("--help", "-help")) for word in argv[1:]):
        print(cli.help_text())
        sys.exit(0)
    try:
        return [argv[0], cli.parse(argv)]
    except UserError as error:
        fail(error)


def main(arguments):
    """Runs what the command line asks for."""
    try:
        if cli.FLAGS.list_configs:
            print(cli.list_configs())
        elif cli.FLAGS.coordinator:
            unjoined = apart(cli.FLAGS.coordinator, cli.FLAGS.num_processes, cli.FLAGS.process_id)
            supervised(lambda joined: run(cli.FLAGS, arguments[1], joined), unjoined, LOST.format(cli.FLAGS.heartbeat))
        else:
            run(cli.FLAGS, arguments[1])
    except UserError as error:
        fail(error, at_once=bool(cli.FLAGS.coordinator))


def run(flags, config, joined=lambda: None):
    """Dispatches on --mode; imports JAX. `joined` is called once all of several processes have come together."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/genflow/xla"))
    from configs import common
    from genflow import hosts, train, use

    if flags.coordinator:
        hosts.join(flags.coordinator, flags.num_processes, flags.process_id, flags.heartbeat, joined)
    logging.set_verbosity(logging.WARNING)  # orbax and JAX tell their internals at the level of information
    if flags.mode == "eval":
        use.evaluate_run(flags.workdir, defaults=common.base(), **cli.evaluation())
    elif flags.mode == "sample":
        use.sample_run(flags.workdir, defaults=common.base(), **cli.sampling())
    else:
        try:
            train.train(config, flags.workdir, common.RESUMABLE, common.base(), flags.wandb, STARTED)
        except train.Interrupted as stop:
            print(stop, file=sys.stderr)
            sys.exit(stop.exit_status)


def fail(error, at_once=False):
    """Prints one sentence and leaves with status 2; one process of several `at_once`, without a word to the others."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    (os._exit if at_once else sys.exit)(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
