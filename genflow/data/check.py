"""Compares data with its spec; what does not match is named by part, index and field."""

import numpy as np

from genflow.core import Spec
from genflow.data.dataset import Arrays, Dataset, in_memory, rows
from genflow.errors import UserError


def checked(spec: Spec, part: str, dataset: Dataset) -> Dataset:
    """Checks a part against `spec`: at once where it is in memory, batch by batch where it is read lazily.

    Raises:
      UserError: a shape, range, NaN or label that the spec excludes, with its part, index and field.
    """
    if dataset.num == 0:
        raise UserError(f"data.name={spec.name!r}: the {part} part is empty")
    if dataset.gather is not rows:
        return dataset  # windows of a text, which was checked when its symbols were numbered
    if dataset.arrays is not None:
        check_arrays(spec, part, dataset.arrays)
        kind = np.float32 if spec.bins is None else np.uint8
        return in_memory(**dataset.arrays | {"x": dataset.arrays["x"].astype(kind, copy=False)})

    def fetch(indices):
        arrays = dataset.fetch(indices)
        check_arrays(spec, part, arrays, indices)
        return arrays

    return Dataset(dataset.num, fetch)


def check_arrays(spec: Spec, part: str, arrays: Arrays, indices: np.ndarray | None = None) -> None:
    """Raises UserError if `arrays` do not match `spec`; `indices` are the examples' numbers in their part."""
    x = arrays["x"]
    if isinstance(x, np.ndarray):  # else decoded images of any size, which `images.fit` brings to one shape
        _check_x(spec, part, x, indices)
    if spec.cond_dims:
        _refuse(spec, part, "cond", arrays["cond"], ~np.isfinite(arrays["cond"]), indices, "finite values")
    if spec.num_classes:
        label = arrays["label"]
        bad = _outside(label, spec.num_classes)
        _refuse(spec, part, "label", label, bad, indices, f"0 .. {spec.num_classes - 1}")


def check_sizes(config, parts: dict[str, Dataset]) -> None:
    """Raises UserError if a part is empty or the training part does not fill one batch."""
    for part, dataset in parts.items():
        if dataset.num == 0:
            raise UserError(f"data.validation={config.validation}: {config.name!r} has no example left for {part}")
    num = parts["train"].num
    if num < config.batch_size:
        raise UserError(
            f"data.batch_size={config.batch_size} is more than the {num} training examples of {config.name!r}; "
            "lower data.batch_size or use more examples (data.num_examples, data.validation)"
        )


def _check_x(spec, part, x, indices):
    if x.shape[1:] != spec.shape:
        raise _mismatch(spec, part, "x", 0 if indices is None else indices[0], f"shape {x.shape[1:]}", spec.shape)
    bad = ~np.isfinite(x) if spec.bins is None else _outside(x, spec.bins)
    _refuse(spec, part, "x", x, bad, indices, "finite values" if spec.bins is None else f"0 .. {spec.bins - 1}")


def _outside(a: np.ndarray, stop: int) -> np.ndarray | None:
    """Returns where `a` is not in 0 .. stop - 1, or None where that is nowhere (two passes, no temporary)."""
    return None if a.min() >= 0 and a.max() < stop else (a < 0) | (a >= stop)


def _refuse(spec, part, field, values, bad, indices, wanted):
    if bad is None or not bad.any():
        return
    where = np.unravel_index(np.flatnonzero(bad)[0], bad.shape)
    index = where[0] if indices is None else indices[where[0]]
    raise _mismatch(spec, part, field, index, values[where], wanted)


def _mismatch(spec, part, field, index, found, wanted):
    return UserError(f"data.name={spec.name!r}: {part}[{int(index)}] {field!r} is {found}, wanted {wanted}")
