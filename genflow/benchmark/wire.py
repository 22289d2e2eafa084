"""What each device computes and sends in one train step, read off the compiled program: nothing is trained.

Usage: python -m genflow.benchmark.wire '{"config": "configs/glow_digits.py", "rows": 16, "overrides": {"seed": "1"}}'
with the examples of one device's batch as rows. It prints one line of JSON.
"""

import json
import math
import sys

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from genflow import cli, provenance
from genflow.collectives import collectives, open_loops
from genflow.core import partition
from genflow.experiment import Experiment, assemble, compile_call, initializer, make_feed
from genflow.sharding import replicated


def measure(config: str, rows: int, overrides: dict[str, str]) -> dict:
    """The collectives of the train step that `main.py` compiles, and what each device holds, in bytes.

    Args:
      rows: examples on each device.
      overrides: {field: text}, as on the command line.
    """
    sizes = dict.fromkeys(("data.batch_size", "eval.batch_size"), str(rows * jax.device_count()))
    experiment = assemble(cli.load_config(config, overrides | sizes))
    _, target = initializer(experiment)
    program = compiled(experiment, target)
    hlo = program.as_text()
    weights = {group: partition(target.params[group])[0] for group in target.params}
    return {
        "devices": jax.device_count(),
        "parameter_bytes": sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(weights)),
        "parameter_bytes_held": held_bytes(weights),
        "state_bytes_held": held_bytes(target),
        "collectives": [c._asdict() for c in collectives(hlo)],
        "flops": program.cost_analysis()["flops"],  # of one device, in one run of every loop's body
        "open_loops": open_loops(hlo),  # the one over the steps of a call
        "versions": provenance.versions(),
        "device": f"JAX on {provenance.hardware()}",
    }


def compiled(experiment: Experiment, target: PyTree) -> jax.stages.Compiled:
    """The program of several train steps, from the shapes of the state alone."""
    zero = jax.device_put(jnp.zeros((), jnp.int32), replicated(experiment.mesh))
    return compile_call(experiment, make_feed(experiment), target._replace(step=zero))


def held_bytes(tree: PyTree) -> int:
    """Bytes of a tree of shapes with shardings that one device holds."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in leaves)


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
