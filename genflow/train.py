"""The one training loop."""

import functools
import pathlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from genflow import hosts, pictures, summary
from genflow import workdir as folders
from genflow.checkpoint import Checkpoints, open_checkpoints
from genflow.errors import UserError
from genflow.evaluate import in_unit, normalized, unit
from genflow.experiment import Experiment, Feed, assemble, compile_call, evaluation_key, initializer, make_feed
from genflow.failpoints import failpoint
from genflow.goodput import RunClock
from genflow.metrics import Progress, Writer, tracked
from genflow.step import TrainState
from genflow.trained import evaluated_params


class Interrupted(Exception):
    """A signal ended the run after its state was saved."""

    def __init__(self, number: int, step: int):
        super().__init__(f"saved step {step}; run the same command to resume")
        self.exit_status = 128 + number


class Diverged(Exception):
    """Training cannot go on from here; `remedy` is what a user may change."""

    def __init__(self, message: str, remedy: str):
        super().__init__(message)
        self.remedy = remedy


class Run(NamedTuple):
    """The tools of one run of the loop."""

    experiment: Experiment
    output: pathlib.Path
    checkpoints: Checkpoints
    writer: Writer
    progress: Progress
    watch: RunClock
    best: dict  # {'step', 'value'} of the lowest validation loss so far; empty at the start
    rollbacks: int  # so far


def train(
    config: ConfigDict,
    workdir: str = "",
    resumable: tuple[str, ...] = (),
    defaults: Mapping = MappingProxyType({}),
    wandb: str = "off",
    started: float | None = None,
) -> dict:
    """Trains, or resumes, one run; then scores it and writes its report. Returns the record (record.json).

    Args:
      workdir: the run folder; empty: runs/NAME, or NAME-2, ... where another configuration has been there.
      resumable: the fields that may differ from those of the run that is resumed.
      defaults: what that run had where its config.json, of an earlier revision, has no field.
      wandb: Weights & Biases: off, offline or online.
      started: time.monotonic() when the process began, for the goodput; now by default.

    Raises:
      UserError: before anything is computed or written, for bad input.
      Interrupted: SIGTERM or SIGINT, after a checkpoint.
    """
    hosts.check_same("configuration", folders.config_hash(config))
    watch = RunClock(started)
    path = folders.resolve(config.name, config, workdir, defaults=defaults)
    with hosts.output_folder(path) as output:
        with hosts.on_first(folders.discarded_on_error(path)):
            with watch.measure("data"):
                hosts.check_shared(path)
                differences = _check_folder(path, config, resumable, defaults)
                experiment = assemble(config)
                summary.check_samples(experiment)
            with watch.measure("init"):
                first, target = initializer(experiment)
        folders.write_config(output, config)
        mode = wandb if jax.process_index() == 0 else "off"
        with watch.attempt(output), tracked(output, _told(config), mode) as tracker:
            keep = config.checkpoint.keep
            with open_checkpoints(path / "checkpoints", keep) as checkpoints, hosts.interruptible() as interruptions:
                newest = functools.partial(_newest, checkpoints, first, target, differences)
                _train(experiment, output, checkpoints, watch, tracker, newest, interruptions)
            record = summary.finish(experiment, target, path, output, watch)
            if tracker is not None:  # the command may name folders of this machine
                tracker.summary.update({name: value for name, value in record.items() if name != "command"})
        return record


def _told(config):
    """The configuration without the folder of the data, which says something of the machine."""
    told = config.to_dict()
    return told | {"data": {key: value for key, value in told["data"].items() if key != "data_dir"}}


def _check_folder(path, config, resumable, defaults):
    if not (path / folders.CONFIG_FILE).exists():
        return []
    stored, _ = folders.filled(folders.read_config(path), defaults)
    return folders.check_resume(stored, config, resumable)


def _train(experiment, output, checkpoints, watch, tracker, newest, interruptions) -> None:
    """Brings the run from its newest checkpoint, which `newest` reads, to its last step."""
    config = experiment.config
    with watch.measure("init"):
        train_state, metadata = newest()
    watch.carry(metadata)
    if start := int(train_state.step):
        print(f"resuming {checkpoints.directory.parent} at step {start}", file=sys.stderr)
    if start >= config.train.num_steps:
        return
    with watch.measure("compile"):
        feed = make_feed(experiment)
    while True:
        rollbacks, left = checkpoints.rollbacks()
        try:
            best = metadata["best"]
            _attempt(experiment, output, checkpoints, watch, tracker, best, rollbacks, train_state, feed, interruptions)
            return
        except Diverged as error:
            if rollbacks >= config.train.max_rollbacks:
                checkpoints.wait()
                raise UserError(f"{error}; the checkpoints are intact\n{error.remedy}") from error
            _go_back(checkpoints, rollbacks + 1, left)
            train_state, metadata = newest()
            watch.go_back(metadata)
            times = f"{rollbacks + 1} of at most {config.train.max_rollbacks} times"
            back = int(train_state.step)
            print(f"{error}: back to step {back}, with other noise ({times})", file=sys.stderr, flush=True)


def _newest(checkpoints, first, target, differences) -> tuple[TrainState, dict]:
    """The newest checkpoint, or the beginning, with the best step before it; later ones are of another continuation."""
    restored = checkpoints.restore(target, hint=differences)
    train_state, metadata = restored if restored else (first(), {})
    checkpoints.drop_after(int(train_state.step))
    best = metadata.get("best", {})
    return train_state, metadata | {"best": best if best.get("step") in checkpoints.steps("best") else {}}


def _go_back(checkpoints, rollbacks, left) -> None:
    """Drops the checkpoints after the newest; where the run went back to that one before, after the one before it."""
    checkpoints.wait()
    steps = checkpoints.steps()
    if len(steps) > 1 and steps[-1] == left:
        steps.pop()
    checkpoints.go_back(rollbacks, steps[-1] if steps else 0)


def _attempt(
    experiment, output, checkpoints, watch, tracker, best, rollbacks, train_state, feed, interruptions
) -> None:
    """Trains from a state to the last step, with noise that is another one after each rollback."""
    config, start = experiment.config, int(train_state.step)
    with watch.measure("compile"):
        call = compile_call(experiment, feed, train_state, rollbacks)
    abandoned = checkpoints.rollbacks() == (rollbacks, start) and rollbacks > 0
    writer = Writer(output, start, abandoned, tracker)
    progress = Progress(start, config.train.num_steps, config.data.batch_size, lambda: watch.elsewhere("train"))
    try:
        run = Run(experiment, output, checkpoints, writer, progress, watch, best, rollbacks)
        _loop(run, train_state, feed, call, interruptions)
    finally:
        progress.close()
        writer.close()


def _loop(run: Run, train_state: TrainState, feed: Feed, call, interruptions: hosts.Interruptions) -> None:
    """Call after call until the last step; what is due between calls: metrics, evaluation, sheets, checkpoints."""
    config = run.experiment.config
    step, pending = int(train_state.step), None
    while step < config.train.num_steps:
        failpoint("train/step", step)
        count = next_stop(config, step) - step
        with run.watch.measure("train"):
            train_state, metrics = call(train_state, feed.data, feed.entries(step, count), np.int32(count))
            step += count
            _record(run, pending, step)  # of the call before: the device is already busy with this one
            pending = step, metrics
        last, signal = step == config.train.num_steps, interruptions.agreed()
        if signal or last or any(is_due(period, step) for period in _pauses(config)):
            with run.watch.measure("train"):
                pending = _record(run, pending, step)
        if last or is_due(config.eval.every, step):
            _validate(run, train_state, step)
        if is_due(config.sample.every, step):
            with run.watch.measure("samples"):
                pictures.write_sheet(
                    run.experiment, run.output, evaluated_params(run.experiment, train_state), train_state.state, step
                )
                run.writer.write_sheet(step)
        if signal or last or is_due(config.checkpoint.every, step):
            with run.watch.measure("checkpoint"):
                _save(run, train_state, step, "latest")
        if signal and not last:
            run.checkpoints.wait()
            raise Interrupted(signal, step)


def _pauses(config):
    """How often, in steps, something else than training happens."""
    return config.eval.every, config.sample.every, config.checkpoint.every


def next_stop(config: ConfigDict, step: int) -> int:
    """The step at which the next call ends: after steps_per_call, or where something is due."""
    periods = (config.train.log_every, *_pauses(config))
    stops = [step - step % period + period for period in periods if period]
    return min([step + config.train.steps_per_call, config.train.num_steps, *stops])


def is_due(period: int, step: int) -> bool:
    """Whether something that happens every `period` steps (0: never) happens after this one."""
    return period > 0 and step % period == 0


def _record(run: Run, pending, begun: int) -> None:
    """Fetches and writes the metrics of a finished call, and stops a run that cannot go on.

    Args:
      begun: the last step of the newest call.
    """
    if pending is None:
        return
    step, metrics = pending
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    config, spec = run.experiment.config, run.experiment.spec
    name, loss = next((k, v) for k, v in values.items() if "loss" in k)
    if "nll" in values:
        name, loss = unit(spec), in_unit(spec, values["nll"])
    run.progress.update(step, loss, name, begun)
    if is_due(config.train.log_every, step) or step == config.train.num_steps:
        rates = {
            f"learning_rate{_suffix(run, group)}": float(o.schedule((step - 1) // o.every))
            for group, o in run.experiment.optimizers.items()
        }
        named = {unit(spec).replace("/", "_per_"): loss} if "nll" in values else {}
        rates["images_per_second"] = run.progress.images_per_second(begun)
        rates["goodput"] = run.watch.goodput()["value"] or 0.0
        run.writer.write(step, "train", values | named | rates)
        run.progress.log(step, loss, name, begun)
    _check_progress(run, step, values)


def _check_progress(run: Run, step: int, values: dict[str, float]) -> None:
    """Raises Diverged where updates are not finite, or the model says so by a metric `diverged` above zero."""
    config = run.experiment.config
    if values["skipped_in_a_row"] >= config.train.max_skipped:
        limited = any(optimizer.skip_norm for optimizer in run.experiment.optimizers.values())
        raise Diverged(
            f"the last {values['skipped_in_a_row']:.0f} updates up to step {step} were not finite "
            + "or above optimizer.skip_norm " * limited
            + "and were skipped",
            "lower --config.optimizer.learning_rate or set "
            f"--config.optimizer.{'skip_norm higher' if limited else 'clip_norm'}, in a new --workdir",
        )
    if named := [name for name, value in values.items() if name.rpartition("/")[2] == "diverged" and value > 0]:
        raise Diverged(
            f"training diverged by step {step} ({named[0]} in {values[named[0]]:.0%} of the last steps)",
            "lower --config.optimizer.learning_rate, take more steps of the chains or more of whatever holds the model "
            "back, in a new --workdir; or set --config.train.max_rollbacks higher",
        )


def _suffix(run, group):
    return f"/{group}" if len(run.experiment.optimizers) > 1 else ""


def _validate(run: Run, train_state: TrainState, step: int) -> None:
    """Scores the validation part and saves the state where it is the best so far."""
    experiment, config = run.experiment, run.experiment.config
    dataset = experiment.evaluation["validation"]
    if experiment.model.log_prob is None or not dataset.num:
        return
    with run.watch.measure("validation"):
        params = evaluated_params(experiment, train_state)
        state = normalized(experiment.model, params, train_state.state, evaluation_key(experiment))
        values = summary.part_score(experiment, experiment.model, params, state, "validation", config.seed)
    name = unit(experiment.spec).replace("/", "_per_")
    run.writer.write(step, "validation", {name: values.value, "standard_error": values.standard_error})
    if values.value < run.best.get("value", np.inf):
        run.best.update(step=step, value=values.value)
        if config.eval.select == "best":
            with run.watch.measure("checkpoint"):
                _save(run, train_state, step, "best")


def _save(run: Run, train_state: TrainState, step: int, which: str) -> None:
    config = run.experiment.config.to_dict()
    run.watch.beat()  # before the checkpoint: what it calls productive is known to have been trained
    metadata = {"best": dict(run.best), "seconds": run.watch.seconds, "config": config, "rollbacks": run.rollbacks}
    metadata["productive"] = run.watch.productive()
    run.checkpoints.save(step, train_state, metadata, which)
