"""What a sweep is: an experiment, a space and a budget, read from a file and checked before anything runs."""

import difflib
import itertools
import math
import os
import pathlib
import runpy
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import ConfigDict

from genflow import cli
from genflow.errors import UserError
from genflow.schema import shown

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median")
DIRECTIONS = ("minimize", "maximize")
DEFAULT = "configs/sweeps/glow_lr.py"
# Fields that change what is measured, or which numbers are drawn: the best of them is not the better model.
RULER = ("seed", "eval", *(f"data.{f}" for f in ("name", "data_dir", "validation", "crop", "image_size", "bits")))
RULER += ("data.binarize", "data.window", "data.tokens")
# What a trial leaves out of its final scoring unless the sweep's overrides say otherwise.
LEAN = {"eval.split": "validation", "eval.baselines": "false", "eval.num_samples": "0", "eval.parzen": "false"}


class Range(NamedTuple):
    """Every number from `low` to `high`, both included."""

    low: float
    high: float
    is_log: bool = False
    is_integer: bool = False


class Choice(NamedTuple):
    """One of several values of any kind that a field may have."""

    values: tuple


class Sweep(NamedTuple):
    """A sweep; its file returns one from get_sweep().

    Attributes:
      config: the experiment, FILE.py or FILE.py:debug.
      space: {field of the configuration: what it may be}.
      num_trials: runs in all; 0 with sampler='grid': the whole grid.
      overrides: {field: value} of every trial.
      metric: a column of the validation rows of metrics.jsonl; empty: the run's own unit, bits per dimension or nats.
      direction: 'minimize' or 'maximize' the metric.
      sampler: 'tpe' (learns from finished trials), 'random' or 'grid' (of choices and integers).
      pruner: 'median' stops a trial that is behind the others' median at a validation; 'none' lets each finish.
      workers: trials at a time.
      seed: of the sampler; that of the runs is `config.seed`, the same for all of them.
      trainer: the words of the command before its flags; empty: python main.py.
    """

    config: str
    space: Mapping[str, Range | Choice]
    num_trials: int = 0
    overrides: Mapping[str, object] = MappingProxyType({})
    metric: str = ""
    direction: str = "minimize"
    sampler: str = "tpe"
    pruner: str = "none"
    workers: int = 1
    seed: int = 0
    trainer: tuple[str, ...] = ()


def uniform(low: float, high: float) -> Range:
    """Any real number between the two."""
    return Range(low, high)


def log_uniform(low: float, high: float) -> Range:
    """Any real number between the two, its logarithm uniform."""
    return Range(low, high, is_log=True)


def integer(low: int, high: int, log: bool = False) -> Range:
    """Any whole number between the two; with `log`, small ones are told apart more finely."""
    return Range(low, high, is_log=log, is_integer=True)


def choice(*values: object) -> Choice:
    """One of the values."""
    return Choice(values)


def text(value: object) -> str:
    """A value as the command line has it, exactly.

    >>> text(1e-4), text(True), text((8, 8)), text("adam")
    ('0.0001', 'true', '(8, 8)', 'adam')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def load_sweep(file: str) -> tuple[str, Sweep]:
    """The name of a sweep (its file's) and the sweep, checked.

    Raises:
      UserError: no such file, an error in it, or anything that would stop a trial and can be seen without JAX.
    """
    path = find_sweep(file)
    cli.defaults()  # a sweep's file may import configs
    try:
        names = runpy.run_path(str(path))
        sweep = names["get_sweep"]() if "get_sweep" in names else None
    except (Exception, SystemExit) as error:  # a sweep is a program: whatever it raises is the user's to see
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{path}{where}: {shown(f'{type(error).__name__}: {error}', 200)}") from error
    if not isinstance(sweep, Sweep):
        raise UserError(f"{path}: no function get_sweep() that returns a Sweep; see {DEFAULT}")
    try:
        return path.stem, check(sweep)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def find_sweep(file: str) -> pathlib.Path:
    """The file of a sweep: relative names are tried here, then beside main.py."""
    name = os.path.expanduser(file if file.endswith(".py") else f"{file}.py")
    if path := next((p for p in (pathlib.Path(name), cli.ROOT / name) if p.is_file()), None):
        return path
    known = {p.stem: p for p in sorted((cli.ROOT / "configs" / "sweeps").glob("*.py"))}
    near = difflib.get_close_matches(pathlib.Path(name).stem, known, 1, 0.3) or [*known][:1]
    hint = f"; did you mean configs/sweeps/{near[0]}.py?" if near else ""
    raise UserError(f"{shown(file)}: no such file{hint}")


def check(sweep: Sweep) -> Sweep:
    """The sweep with its number of trials filled in.

    Raises:
      UserError: a value that cannot be, told in a sentence that names the field.
    """
    _check_words(sweep)
    base = base_config(sweep)
    for field, what in sweep.space.items():
        _check_field(sweep, field, what)
    if sweep.pruner != "none" and not 0 < base.eval.every < base.train.num_steps:
        raise UserError(
            f"pruner={sweep.pruner!r} needs validation while a trial runs: set overrides['eval.every'] "
            f"above zero and below train.num_steps={base.train.num_steps} (it is {base.eval.every}), or pruner='none'"
        )
    return _with_size(sweep._replace(space=dict(sweep.space), overrides=dict(sweep.overrides)))


def base_config(sweep: Sweep) -> ConfigDict:
    """The configuration of every trial before the space is drawn from."""
    try:
        return cli.load_config(sweep.config, {field: text(value) for field, value in sweep.overrides.items()})
    except UserError as error:
        raise UserError(f"overrides: {error}" if sweep.overrides else str(error)) from error


def _check_words(sweep):
    for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("direction", DIRECTIONS)):
        if (word := getattr(sweep, name)) not in known:
            raise UserError(f"{name}={shown(repr(word))}: expected one of {', '.join(known)}")
    least = {"num_trials": 0 if sweep.sampler == "grid" else 1, "workers": 1, "seed": 0}
    for name, low in least.items():
        value = getattr(sweep, name)
        if type(value) is not int or value < low:
            raise UserError(f"{name}={shown(repr(value))}: expected a whole number of at least {low}")
    if not isinstance(sweep.space, Mapping) or not sweep.space:
        raise UserError("space: expected at least one field, such as {'optimizer.learning_rate': log_uniform(...)}")
    if not isinstance(sweep.overrides, Mapping):
        raise UserError("overrides: expected {field: value}, such as {'train.num_steps': 500}")
    if not isinstance(sweep.trainer, tuple):
        raise UserError("trainer: expected a tuple of words, such as ('python', 'main.py')")


def _check_field(sweep, field, what):
    if any(f"{field}.".startswith(f"{ruler}.") for ruler in RULER):
        raise UserError(f"space[{field!r}]: it changes what is measured, not the model; set it in overrides instead")
    if field in sweep.overrides:
        raise UserError(f"space[{field!r}]: overrides sets it too; keep one of the two")
    if not isinstance(what, Range | Choice):
        raise UserError(f"space[{field!r}]: expected uniform, log_uniform, integer or choice, not {shown(repr(what))}")
    if isinstance(what, Range):
        _check_range(field, what)
    elif not what.values or len(set(map(text, what.values))) < len(what.values):
        raise UserError(f"space[{field!r}]: a choice needs at least one value, and each only once")
    for value in _samples(what):
        try:
            cli.load_config(sweep.config, {f: text(v) for f, v in sweep.overrides.items()} | {field: text(value)})
        except UserError as error:
            raise UserError(f"space[{field!r}]: {error}") from error


def _samples(what):
    """Values that a field must be able to have: of real numbers one between the ends, where those may be whole."""
    if isinstance(what, Choice):
        return what.values
    return what[:2] if what.is_integer else (*what[:2], what.low + (what.high - what.low) / math.pi)


def _check_range(field, what):
    kinds = (int,) if what.is_integer else (int, float)
    if not all(type(end) in kinds and math.isfinite(end) for end in what[:2]):
        raise UserError(f"space[{field!r}]: both ends must be {'whole' if what.is_integer else 'finite'} numbers")
    if not what.low < what.high:
        raise UserError(f"space[{field!r}]: low={what.low} must be below high={what.high}")
    if what.is_log and what.low <= 0:
        raise UserError(f"space[{field!r}]: low={what.low} must be above zero on a logarithmic scale")


def _with_size(sweep):
    if sweep.sampler != "grid":
        return sweep
    if reals := [f for f, what in sweep.space.items() if isinstance(what, Range) and not what.is_integer]:
        raise UserError(f"space[{reals[0]!r}]: sampler='grid' needs choice(...) or integer(...) for every field")
    size = math.prod(len(axis) for axis in _axes(sweep))
    if sweep.num_trials > size:
        raise UserError(f"num_trials={sweep.num_trials}: the grid has {size} points; set at most that, or 0 for all")
    return sweep._replace(num_trials=sweep.num_trials or size)


def grid_point(sweep: Sweep, number: int) -> dict[str, object]:
    """The values of one trial of a grid; the last field of the space changes fastest."""
    return dict(zip(sweep.space, next(itertools.islice(itertools.product(*_axes(sweep)), number, None)), strict=True))


def _axes(sweep):
    return [w.values if isinstance(w, Choice) else range(w.low, w.high + 1) for w in sweep.space.values()]
