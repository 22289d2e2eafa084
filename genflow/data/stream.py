"""Batches of data that do not fit in memory, read ahead by threads."""

import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from genflow.data.dataset import Arrays, Dataset, batch_indices

READ_AHEAD = 8  # batches


def stream(
    dataset: Dataset,
    seed: int,
    start_step: int,
    stop_step: int,
    batch_size: int,
    rows: slice | Int[np.ndarray, " r"] = slice(None),
) -> Iterator[Arrays]:
    """Yields `rows` of the batches of steps start_step .. stop_step - 1, the same that an in-memory set gives.

    Args:
      dataset: the training part.
      seed: of the order, as for `batch_indices`.
      start_step: the first step; resuming needs nothing else.
      stop_step: one past the last step.
      batch_size: examples a step, over all hosts.
      rows: of each batch, those that this host reads.
    """
    import grain

    def fetch(step):
        return dataset.fetch(batch_indices(seed, int(step), dataset.num, batch_size)[rows])

    steps = grain.MapDataset.range(start_step, stop_step).map(fetch)
    options = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=READ_AHEAD)
    return iter(steps.to_iter_dataset(options))
