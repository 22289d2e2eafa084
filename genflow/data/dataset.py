"""A data set as a pure function of indices, and the order in which training visits it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

SPLIT_SEED = 20141030  # of every split that no authority has fixed; a change makes all such figures incomparable

Arrays = dict[str, np.ndarray]


def rows(arrays: Arrays, index: Int[np.ndarray, " b"]) -> Arrays:
    """Returns the examples at `index` of arrays that hold one example a row, of NumPy or of JAX."""
    return {name: a[index] for name, a in arrays.items()}


class Dataset(NamedTuple):
    """One part (train, validation, test) of a data set; values as `core.Spec` says, labels int32."""

    num: int
    fetch: Callable[[np.ndarray], Arrays]  # indices [b] -> {'x': [b, *event], and where there are: 'label', 'cond'}
    arrays: Arrays | None = None  # the whole part, or None where it is read lazily
    gather: Callable[[Arrays, np.ndarray], Arrays] = rows  # (arrays, indices) -> as fetch; on the device too


def in_memory(
    x: Shaped[np.ndarray, "N *event"],
    label: Int[np.ndarray, " N"] | None = None,
    cond: Float[np.ndarray, "N D"] | None = None,
) -> Dataset:
    """Returns a part that is held in memory."""
    arrays = {"x": x} if label is None else {"x": x, "label": np.asarray(label, np.int32)}
    arrays |= {} if cond is None else {"cond": cond}
    return Dataset(len(x), lambda indices: rows(arrays, indices), arrays)


def select(dataset: Dataset, indices: Int[np.ndarray, " n"]) -> Dataset:
    """Returns the part's examples at `indices`, in that order."""
    if dataset.arrays is None:
        return Dataset(len(indices), lambda chosen: dataset.fetch(indices[chosen]))
    if dataset.gather is rows:
        return in_memory(**rows(dataset.arrays, indices))

    def gather(arrays, chosen):
        rest = {name: a for name, a in arrays.items() if name != "selected"}
        return dataset.gather(rest, arrays["selected"][chosen])

    arrays = dataset.arrays | {"selected": indices.astype(np.int32)}
    return Dataset(len(indices), lambda chosen: gather(arrays, chosen), arrays, gather)


def materialize(dataset: Dataset, chunk: int = 1024) -> Dataset:
    """Reads a lazy part into memory."""
    if dataset.arrays is not None:
        return dataset
    starts = range(0, dataset.num, chunk)
    batches = [dataset.fetch(np.arange(s, min(s + chunk, dataset.num))) for s in starts]
    return in_memory(**{name: np.concatenate([b[name] for b in batches]) for name in batches[0]})


@functools.lru_cache(maxsize=4)
def permutation(num: int, seed: int, epoch: int = 0) -> Int[np.ndarray, " num"]:
    """Returns the order of `num` examples in one epoch, a function of its arguments on every machine.

    It sorts raw Philox words, which numpy promises never to change; `Generator.permutation` carries no such promise.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num)
    order = np.argsort(words, kind="stable")
    order.setflags(write=False)
    return order


def batch_indices(seed: int, step: int, num: int, batch_size: int) -> Int[np.ndarray, " batch_size"]:
    """Returns the examples of one training step: consecutive slices of one permutation after another.

    Each example occurs once an epoch, also where `batch_size` does not divide `num`.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = position // num
    slices = [permutation(num, seed, int(e))[position[epochs == e] % num] for e in np.unique(epochs)]
    return np.concatenate(slices)
