"""Cuts the parts that a source has into train, validation and test."""

import numpy as np

from genflow.data.dataset import SPLIT_SEED, Dataset, permutation, select
from genflow.errors import UserError

TEST_FRACTION = 0.2  # of a source that names no test part


def split(config, parts: dict[str, Dataset]) -> dict[str, Dataset]:
    """Returns train, test and (unless data.validation is 0 and the source has none) validation.

    A source without a test part is tested on its validation part, as the literature does for ImageNet, or on a fixed
    fifth of its examples. Every cut is the same for all seeds.
    """
    if "train" not in parts:
        raise UserError(f"data.name={config.name!r} has no train part, only {', '.join(sorted(parts)) or 'none'}")
    train, test, validation = parts["train"], parts.get("test"), parts.get("validation")
    if test is None:
        test, validation = validation, None
    if test is None:
        test, train = _cut(train, TEST_FRACTION)
    if validation is None and config.validation:
        validation, train = _cut(train, config.validation)
    train = _limit(train, config.num_examples)
    return {"train": train, **({} if validation is None else {"validation": validation}), "test": test}


def _cut(dataset: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    order = permutation(dataset.num, SPLIT_SEED, 1)
    num = int(round(fraction * dataset.num))
    return select(dataset, np.sort(order[:num])), select(dataset, np.sort(order[num:]))


def _limit(dataset: Dataset, num: int) -> Dataset:
    """Keeps `num` examples, spread over the part: a source may be sorted by class."""
    if not 0 < num < dataset.num:
        return dataset
    return select(dataset, np.sort(permutation(dataset.num, SPLIT_SEED, 2)[:num]))
