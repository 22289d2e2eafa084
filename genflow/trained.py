"""A finished run, read back from its folder."""

import pathlib
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from genflow import workdir as folders
from genflow.checkpoint import restore
from genflow.core import Params
from genflow.errors import UserError
from genflow.experiment import Experiment, assemble, initializer
from genflow.step import averaged_params


class Trained(NamedTuple):
    """A finished run in memory."""

    experiment: Experiment
    params: Params  # the average where the configuration keeps one
    state: PyTree
    step: int  # at which these parameters were saved
    last_step: int
    metadata: dict
    counts: dict[str, int]  # skipped updates


def load_trained(workdir: pathlib.Path) -> Trained:
    """Reads config.json and the chosen checkpoint of a run folder.

    Raises:
      UserError: not a run folder, or no checkpoint in it.
    """
    if not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: no such folder; train a run first, it prints its folder")
    return choose(assemble(folders.read_config(workdir)), workdir)


def choose(experiment: Experiment, workdir: pathlib.Path) -> Trained:
    """The best checkpoint where the configuration selects it and there is one, otherwise the last."""
    _, target = initializer(experiment)
    directory = workdir / "checkpoints"
    last = restore(directory, target)
    if last is None:
        raise UserError(f"{workdir}: no checkpoint yet; run --mode=train first")
    best = restore(directory, target, "best") if experiment.config.eval.select == "best" else None
    train_state, metadata = best or last
    params = jax.jit(averaged_params, static_argnums=1)(train_state, experiment.config.train.ema_decay)
    counts = {"skipped": int(last[0].skipped)}
    return Trained(experiment, params, train_state.state, int(train_state.step), int(last[0].step), last[1], counts)
