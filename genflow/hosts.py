"""Several hosts: one process each, one program.

Every process runs the same lines, so that none waits for a collective that another skips; what a process other than
the first writes beside the checkpoints goes to a folder that is thrown away.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from genflow.workdir import lock


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of several; must run before anything else touches a device.

    Args:
      coordinator: HOST:PORT of process 0, or 'auto' on Cloud TPU, SLURM and Open MPI, where JAX finds out the rest.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(coordinator, num_processes, process_id)


@contextlib.contextmanager
def output_folder(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The run folder, locked, for the first process; for the others a temporary one."""
    if jax.process_index() == 0:
        with lock(workdir):
            yield workdir
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder)


def to_host(array: jax.Array) -> np.ndarray:
    """The whole of an array whose parts may lie on other hosts; every process must call it."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
