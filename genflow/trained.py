"""A finished run, read back from its folder."""

import inspect
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from genflow import workdir as folders
from genflow.checkpoint import restore
from genflow.core import Params
from genflow.errors import UserError
from genflow.evaluate import normalized
from genflow.experiment import Experiment, assemble, evaluation_key, initializer
from genflow.models import MODELS
from genflow.sharding import replicated
from genflow.step import TrainState, averaged_params


class Trained(NamedTuple):
    """A finished run in memory."""

    experiment: Experiment
    params: Params  # the average where the configuration keeps one
    state: PyTree
    step: int  # at which these parameters were saved
    last_step: int
    metadata: dict
    counts: dict[str, int]  # skipped updates, rollbacks


def load_trained(workdir: pathlib.Path, defaults: Mapping | None = None) -> Trained:
    """Reads config.json and the chosen checkpoint of a run folder.

    Args:
      defaults: a configuration whose values are taken where config.json, that of an earlier revision, has no field.

    Raises:
      UserError: not a run folder, no checkpoint in it, or fields of its model that config.json lacks.
    """
    if not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: no such folder; train a run first, it prints its folder")
    config, added = folders.filled(folders.read_config(workdir), defaults or {})
    if added:
        print(f"{workdir / folders.CONFIG_FILE} has no {', '.join(added)}: taken as the defaults of today")
    _check_model(workdir / folders.CONFIG_FILE, config.model)
    return choose(assemble(config), workdir)


def _check_model(path, section):
    """A builder's default may not be what the run had: nobody fills in its arguments."""
    arguments = inspect.signature(MODELS[section.name]).parameters if section.name in MODELS else ()
    if absent := [f"config.model.{name}" for name in arguments if name not in ("spec", *section)]:
        raise UserError(
            f"{path} has no {', '.join(absent)}: the run was made by an earlier revision of {section.name}\n"
            "write into it the values that mean what that revision did, or use that one (git_revision of record.json)"
        )


def choose(experiment: Experiment, workdir: pathlib.Path, target: TrainState | None = None) -> Trained:
    """The best checkpoint where the configuration selects it and there is one, otherwise the last."""
    target = target or initializer(experiment)[1]
    directory = workdir / "checkpoints"
    last = restore(directory, target)
    if last is None:
        raise UserError(f"{workdir}: no checkpoint yet; run --mode=train first")
    best = restore(directory, target, "best") if experiment.config.eval.select == "best" else None
    train_state, metadata = best or last
    params = evaluated_params(experiment, train_state)
    counts = {"skipped": int(last[0].skipped), "rollbacks": last[1].get("rollbacks", 0)}
    state = normalized(experiment.model, params, train_state.state, evaluation_key(experiment))
    return Trained(experiment, params, state, int(train_state.step), int(last[0].step), last[1], counts)


def evaluated_params(experiment: Experiment, train_state: TrainState) -> Params:
    """What is scored and sampled: the average where the configuration keeps one; whole on every device."""
    average = experiment.config.train.ema_decay, experiment.config.train.ema_warmup
    whole = jax.jit(averaged_params, static_argnums=(1, 2), out_shardings=replicated(experiment.mesh))
    return whole(train_state, *average)
