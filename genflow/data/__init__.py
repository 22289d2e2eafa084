"""Data sets: `load(config.data, seed) -> (spec, train, evaluation)`, and the pure functions that feed them to a step.

A batch is a function of (seed, step) alone: `dataset.fetch(batch_indices(seed, step, dataset.num, batch_size))`, then
`transform` on the device. Nothing has an iterator state to save, and each host can compute its own rows.
"""

import math

import numpy as np

from genflow.core import Spec
from genflow.data.check import check_sizes, checked
from genflow.data.dataset import Dataset, batch_indices, materialize, select
from genflow.data.images import prepared
from genflow.data.memory import fits_in_memory
from genflow.data.sources import find
from genflow.data.split import split
from genflow.data.stream import stream
from genflow.data.transforms import augment, binarize, transform

__all__ = ["Dataset", "augment", "batch_indices", "binarize", "load", "stream", "transform"]


def load(config, seed: int) -> tuple[Spec, Dataset, dict[str, Dataset]]:
    """Reads the data set that the `data` section names.

    Args:
      config: the `data` section of a configuration.
      seed: of what is drawn for training (densities); splits and evaluation parts are the same for every seed.

    Returns:
      What the data are, the training part, and the parts 'validation' (empty where data.validation is 0 and the
      source has none) and 'test'. `arrays` of a part is None where it is read lazily, for `stream`.

    Raises:
      UserError: the data are missing, damaged, do not match their spec or the section.
    """
    spec, parts = find(config, seed)
    parts = {part: checked(spec, part, dataset) for part, dataset in parts.items()}
    parts = split(config, parts)
    check_sizes(config, parts)
    spec, parts = prepared(config, spec, parts)
    if _keep_in_memory(config, spec, parts):
        parts = {part: materialize(dataset) for part, dataset in parts.items()}
    train = parts.pop("train")
    return spec, train, {"validation": select(train, np.arange(0)), **parts}


def _keep_in_memory(config, spec: Spec, parts: dict[str, Dataset]) -> bool:
    if config.placement != "auto":
        return config.placement != "stream"
    return fits_in_memory(math.prod(spec.shape) * sum(dataset.num for dataset in parts.values()))
