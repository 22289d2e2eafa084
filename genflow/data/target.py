"""Draws from the targets of `genflow.targets`, as data: all of it, or what short trajectories in each basin see."""

import numpy as np

from genflow.core import Spec
from genflow.data.dataset import SPLIT_SEED, in_memory
from genflow.data.embedded import Source
from genflow.errors import UserError
from genflow.targets import TARGETS, Target, metropolis, target

DEFAULT_NUM = 20_000
NUM_EVALUATION = 5_000
TRAJECTORIES = 50  # from every start
MOVE = (0.05, 0.2)  # width of a move, in units of x


def draws(name: str, num: int, seed: int) -> Source:
    """`target:NAME`: training points as a function of `seed`, and the same evaluation points for every seed."""
    chosen = _chosen(name)
    sizes = {"train": (num or DEFAULT_NUM, seed), "validation": (NUM_EVALUATION, 0), "test": (NUM_EVALUATION, 0)}
    parts = {
        part: chosen.sample(np.random.default_rng([SPLIT_SEED, i, s]), n)
        for i, (part, (n, s)) in enumerate(sizes.items())
    }
    return _source(name, chosen, parts)


def trajectories(name: str, num: int, seed: int) -> Source:
    """`trajectories:NAME`: short Metropolis trajectories, as many from each basin; the test part is the target's own.

    So the data know the shape of each basin but nothing of its weight.

    Reference: Noé et al. (2019), Boltzmann generators, arXiv:1812.01729, training by example.
    """
    chosen = _chosen(name)
    if chosen.starts is None:
        known = ", ".join(t for t in TARGETS if target(t).starts is not None)
        raise UserError(f"data.name={name!r}: trajectories need starts; {known} has them, write target:NAME otherwise")
    start = np.repeat(chosen.starts, TRAJECTORIES, axis=0)
    parts = {
        part: _walk(chosen, start, n, np.random.default_rng([SPLIT_SEED, i, s]))
        for i, (part, n, s) in enumerate((("train", num or DEFAULT_NUM, seed), ("validation", NUM_EVALUATION, 0)))
    }
    parts["test"] = chosen.sample(np.random.default_rng([SPLIT_SEED, 2, 0]), NUM_EVALUATION)
    return _source(name, chosen, parts)


def _walk(chosen: Target, start, num, rng):
    path = metropolis(chosen.log_density, rng, start, -(-num // len(start)), MOVE)
    return path.reshape(-1, chosen.dims)[:num]


def _chosen(name: str) -> Target:
    try:
        return target(name.partition(":")[2])
    except ValueError as error:
        raise UserError(f"data.name={name!r}: {error}") from error


def _source(name, chosen, parts):
    spec = Spec(name, (chosen.dims,), None, entropy=chosen.entropy, source="drawn by genflow", license="Apache-2.0")
    return spec, {part: in_memory(x.astype(np.float32)) for part, x in parts.items()}
