"""The memory of a sweep: an Optuna study in a journal file, which says what each trial is and how it ended."""

import json
import math
import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from genflow import cli
from genflow import workdir as folders
from genflow.errors import UserError
from genflow.sweep import space
from genflow.sweep.space import Choice, Sweep, base_config, text
from genflow.sweep.trial import Curve, Outcome, Plan

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ModuleNotFoundError as error:
    raise UserError(f"sweeps need {error.name}: pip install 'genflow[sweep]'") from error

JOURNAL_FILE, SWEEP_FILE = "journal.log", "sweep.json"
CHANGEABLE = ("num_trials", "workers")  # by a sweep that goes on
OPEN = (TrialState.RUNNING, TrialState.WAITING)
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """Draws the trials of a sweep and keeps what is known of them, on disk at every moment.

    One process at a time may have it, the one that holds the lock of the sweep's folder. That is why the number of
    trials is exact and what an earlier process has left half-written may be removed. Any other `reads_only`.
    """

    def __init__(self, plan: Plan, reads_only: bool = False):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = plan.sweep
        path = plan.folder / JOURNAL_FILE
        if reads_only:
            self._study = _load(path, plan.name)
        else:
            _repair(path)
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path))),
                study_name=plan.name,
                direction=plan.sweep.direction,
                load_if_exists=True,
            )
        self._trials: dict[int, optuna.Trial] = {}

    def unfinished(self) -> list[int]:
        """The trials that have begun and not ended: those that ran when an earlier process was killed."""
        return [t.number for t in self._study.get_trials(deepcopy=False, states=OPEN)]

    def num_trials(self) -> int:
        """How many there are, in any state."""
        return len(self._study.get_trials(deepcopy=False))

    def ask(self) -> int | None:
        """The number of a new trial; None when all have been drawn."""
        number = self.num_trials()
        if number >= self.sweep.num_trials:
            return None
        self._study.sampler = make_sampler(self.sweep, number)
        self._trials[number] = self._study.ask()
        self.params(number)
        return number

    def params(self, number: int) -> dict[str, str]:
        """The values of a trial as the command line has them; what a kill left undrawn is drawn now."""
        trial = self._trial(number)
        return {field: text(_suggest(trial, field, what)) for field, what in self.sweep.space.items()}

    def report(self, number: int, points: Curve) -> None:
        """Notes validation figures, each step once."""
        trial = self._trial(number)
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        for step, value in points:
            if step not in known:
                trial.report(value, step)

    def should_prune(self, number: int) -> bool:
        """Whether a trial is behind the others."""
        self._study.pruner = make_pruner(self.sweep)
        return self._trial(number).should_prune()

    def finish(self, number: int, outcome: Outcome) -> None:
        """Notes how a trial ended; it is never run again."""
        trial = self._trial(number)
        trial.set_user_attr("detail", outcome.detail)
        if outcome.value is not None:
            trial.set_user_attr("objective", outcome.value)
        value = outcome.value if outcome.state == "complete" else None
        self._study.tell(trial, value, state=STATES[outcome.state])

    def remember(self, number: int, **values: str) -> None:
        """Keeps words about a trial: where a queue has it."""
        for name, value in values.items():
            self._trial(number).set_user_attr(name, value)

    def recall(self, number: int, name: str) -> str:
        """What `remember` kept; '' if nothing."""
        return self._study.get_trials(deepcopy=False)[number].user_attrs.get(name, "")

    def trials(self) -> list[dict]:
        """number, state, value, detail and params (of the types of the space) of every trial, by number."""
        return [_row(self.sweep, t) for t in self._study.get_trials(deepcopy=False)]

    def _trial(self, number):
        if number not in self._trials:  # of an earlier process
            self._study.sampler = make_sampler(self.sweep, number)
            known = self._study.get_trials(deepcopy=False)[number]
            self._trials[number] = optuna.Trial(self._study, known._trial_id)
        return self._trials[number]


def _load(path, name):
    """The study as it is on disk; nothing is written, so that the sweep may run meanwhile."""
    try:
        if path.exists():  # Optuna would make an empty one
            return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))
    except KeyError:
        pass
    raise UserError(f"{path.parent}: no trial of a sweep {name} there yet")


def _row(sweep, trial):
    state = next((name for name, s in STATES.items() if s == trial.state), "running")
    value = trial.user_attrs.get("objective")
    known = {f: v for f, v in trial.params.items() if f in sweep.space}
    params = {f: _value(sweep.space[f], known[f]) for f in sweep.space if f in known}
    return {
        "number": trial.number,
        "state": state,
        "value": value,
        "detail": trial.user_attrs.get("detail", ""),
        "params": params,
    }


def _suggest(trial, field, what):
    if isinstance(what, Choice):
        return trial.suggest_categorical(field, [text(value) for value in what.values])
    suggest = trial.suggest_int if what.is_integer else trial.suggest_float
    return suggest(field, what.low, what.high, log=what.is_log)


def _value(what, drawn):
    if not isinstance(what, Choice):
        return drawn
    return next(value for value in what.values if text(value) == drawn)


class _Grid(optuna.samplers.RandomSampler):
    """Trial k is point k of the grid."""

    def __init__(self, sweep: Sweep):
        super().__init__(seed=sweep.seed)
        self._sweep = sweep

    def sample_independent(self, study, trial, param_name, param_distribution):
        value = space.grid_point(self._sweep, trial.number)[param_name]
        return text(value) if isinstance(self._sweep.space[param_name], Choice) else value


def make_sampler(sweep: Sweep, number: int) -> optuna.samplers.BaseSampler:
    """What draws trial `number`: its randomness is a function of the sweep's seed and this number.

    So a sweep that goes on after a kill does not draw the first trials again, as one sampler with one seed would.
    """
    seed = int(np.random.SeedSequence((sweep.seed, number)).generate_state(1)[0])
    if sweep.sampler == "grid":
        return _Grid(sweep)
    if sweep.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(n_startup_trials=num_random(sweep), seed=seed, constant_liar=True)


def num_random(sweep: Sweep) -> int:
    """How many trials are drawn at random before the sampler or the pruner learns from them: a quarter, 3 to 10."""
    return min(10, max(3, math.ceil(sweep.num_trials / 4)))


def make_pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    """The median of the others at the same validation; the first validation of a trial never ends it."""
    if sweep.pruner == "none":
        return optuna.pruners.NopPruner()
    first = base_config(sweep).eval.every
    return optuna.pruners.MedianPruner(n_startup_trials=num_random(sweep), n_warmup_steps=first + 1)


def check_folder(plan: Plan) -> None:
    """Writes what a sweep is into its folder; compares, where an earlier process has written it.

    Raises:
      UserError: the folder holds another sweep.
    """
    new, path = _description(plan), plan.folder / SWEEP_FILE
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        _check_configuration(plan, old.pop("configuration", None), base_config(plan.sweep))
        differ = [name for name in new if old.get(name) != new[name] and name not in (*CHANGEABLE, "configuration")]
        if differ:
            raise UserError(
                f"{plan.folder} holds a sweep with another {differ[0]} ({_short(old.get(differ[0]))}, now "
                f"{_short(new[differ[0]])})\nchoose another folder with --workdir=DIR, or set it back"
            )
    folders.write_text(path, json.dumps(new, indent=2) + "\n")


def _description(plan: Plan) -> dict:
    sweep = plan.sweep
    base = base_config(sweep)
    described = sweep._asdict() | {
        "space": {f: [type(w).__name__.lower(), *(text(v) for v in _parts(w))] for f, w in sweep.space.items()},
        "overrides": {field: text(value) for field, value in sweep.overrides.items()},
        "trainer": list(sweep.trainer),
        "configuration": json.loads(base.copy_and_resolve_references().to_json()),
    }
    return {"name": plan.name} | described


def _check_configuration(plan, old, new):
    """Refuses another configuration; fields that did not exist when the sweep began have today's defaults."""
    if old == folders.config_hash(new):  # an earlier revision stored no more
        return
    stored = folders.filled(ConfigDict(old if isinstance(old, Mapping) else {}), cli.defaults())[0]
    if differ := folders.diff(stored, new):
        raise UserError(
            f"{plan.folder} holds a sweep with another configuration: {', '.join(folders.describe(differ, most=4))}\n"
            "choose another folder with --workdir=DIR, or set it back"
        )


def _parts(what) -> tuple:
    return what.values if isinstance(what, Choice) else tuple(what)


def _short(value):
    return space.shown(json.dumps(value) if isinstance(value, Mapping | list) else value, 80)


def _repair(path: pathlib.Path) -> None:
    """Removes what a kill in the middle of a write leaves: a stale lock, half a last line."""
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
