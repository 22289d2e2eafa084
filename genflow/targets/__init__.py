"""Densities that are known up to a constant, for training without data: the reverse direction of KL."""

import functools

from genflow.targets.particles import lennard_jones
from genflow.targets.planar import (
    double_well,
    forking_wave,
    four_gaussians,
    many_well,
    parting_wave,
    two_moons,
    wave,
)
from genflow.targets.posteriors import linear_regression, logistic_regression
from genflow.targets.target import Target, log_effective_sample_size, metropolis

TARGETS = {
    "two_moons": two_moons,
    "wave": wave,
    "parting_wave": parting_wave,
    "forking_wave": forking_wave,
    "four_gaussians": four_gaussians,
    "double_well": double_well,
    "many_well": many_well,
    "linear_regression": linear_regression,
    "logistic_regression": logistic_regression,
    "lennard_jones": lennard_jones,
}

__all__ = ["TARGETS", "Target", "log_effective_sample_size", "metropolis", "target"]


@functools.cache
def target(name: str) -> Target:
    """The target of a name, with its normalizer computed once.

    Raises:
      ValueError: there is no such target.
    """
    if name not in TARGETS:
        raise ValueError(f"target={name!r}: expected one of {', '.join(TARGETS)}")
    return TARGETS[name](name)
