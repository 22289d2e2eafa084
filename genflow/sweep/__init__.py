"""Sweeps: many runs of one experiment, and which values of a few fields do best on the validation part."""

from genflow.sweep.space import Sweep, choice, integer, log_uniform, uniform

__all__ = ["Sweep", "choice", "integer", "log_uniform", "uniform"]
