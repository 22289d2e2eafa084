"""Our contestants for the input pipeline: calls of the true train step, or the feed of their batches alone.

Usage: python -m genflow.benchmark.feeding '{"task": "train", "config": "configs/vae_digits.py", "placement": "stream",
"calls": 4, "overrides": {"data.name": "synthetic:32x32x3"}}' with a task of TASKS.
"""

import json
import sys

import jax
import numpy as np

from genflow import cli, provenance
from genflow.benchmark.turns import serve
from genflow.experiment import assemble, compile_call, initializer, make_feed

ENDLESS = 10**9  # steps: more than any turn takes


class Feeding:
    """The batches of one call after another, as the train loop asks for them; calling it makes those of `calls` calls.

    Args:
      placement: 'device', 'host' or 'stream'.
      overrides: {field: text}, as on the command line.
    """

    def __init__(self, config: str, placement: str, calls: int, overrides: dict[str, str]):
        fixed = {"data.placement": placement, "train.num_steps": str(ENDLESS)}
        self.experiment = assemble(cli.load_config(config, overrides | fixed))
        self.calls, self.step = calls, 0
        self.size = self.experiment.config.train.steps_per_call
        self.feed = make_feed(self.experiment)

    def entries(self) -> dict:
        """What the next call is given."""
        self.step += self.size
        return self.feed.entries(self.step - self.size, self.size)

    def __call__(self) -> None:
        """Waits until the batches are on the device."""
        for _ in range(self.calls):
            jax.block_until_ready(self.entries())


class Training(Feeding):
    """The train loop's calls with their feed: the next batches are made while the device is busy with the last."""

    def __init__(self, config: str, placement: str, calls: int, overrides: dict[str, str]):
        super().__init__(config, placement, calls, overrides)
        self.train_state = initializer(self.experiment)[0]()
        self.call = compile_call(self.experiment, self.feed, self.train_state)

    def __call__(self) -> None:
        """Takes the steps; as in the loop, the metrics of a call are fetched after the next has begun.

        Raises:
          FloatingPointError: an update was not finite, and so skipped: its time would flatter us.
        """
        pending = None
        for _ in range(self.calls):
            arguments = self.feed.data, self.entries(), np.int32(self.size)
            self.train_state, metrics = self.call(self.train_state, *arguments)
            jax.device_get(pending)
            pending = metrics
        if int(jax.device_get(pending)["skipped"]):
            raise FloatingPointError("an update was not finite")


TASKS = {"feed": Feeding, "train": Training}


def compete(task: str, **arguments) -> None:
    """Runs once and serves."""
    program = TASKS[task](**arguments)
    program()
    config = program.experiment.config
    facts = {
        "batch": config.data.batch_size,
        "steps": program.calls * program.size,
        "versions": provenance.versions(),
        "device": f"JAX on {provenance.hardware()}",
    }
    serve(facts, program)


if __name__ == "__main__":
    compete(**json.loads(sys.argv[1]))
