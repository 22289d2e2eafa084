"""A configuration made real: data, model, optimizers, mesh, and the batches of every step."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from genflow import data, models
from genflow.core import Batch, Key, Model, Spec
from genflow.data import Dataset
from genflow.data.dataset import rows
from genflow.errors import UserError
from genflow.evaluate import Place, check_importance
from genflow.networks.precision import network_precision
from genflow.optimizers import GroupOptimizer, make_optimizers
from genflow.sharding import (
    check_batch,
    check_rules,
    layout,
    local_rows,
    make_mesh,
    put,
    put_rows,
    replicated,
    tree_shardings,
)
from genflow.step import TrainState, init_state, make_call, make_step

DATA_STREAM = 2**31 - 1  # folded into the seed's key for augmentation, apart from the steps' own keys
EVAL_STREAM = 2**31 - 2
ROLLBACK_STRIDE = 1_000_003  # added to the seed of the steps' noise at each rollback
ON_CPU_BYTES = 4 * 2**30
DEVICE_SHARE = 0.25  # of an accelerator's memory that the data may take


class Experiment(NamedTuple):
    """Everything that a configuration determines before the first step."""

    config: ConfigDict
    spec: Spec
    train: Dataset
    evaluation: dict[str, Dataset]
    model: Model
    optimizers: dict[str, GroupOptimizer]
    mesh: Mesh


def assemble(config: ConfigDict) -> Experiment:
    """Loads the data, builds model, optimizers and mesh, and checks that they fit together."""
    mesh = make_mesh(config.sharding.data, config.sharding.model)
    check_batch(mesh, "data.batch_size", config.data.batch_size, config.optimizer.accumulate)
    check_batch(mesh, "eval.batch_size", config.eval.batch_size)
    return Experiment(config, *parts(config), mesh)


def parts(config: ConfigDict) -> tuple[Spec, Dataset, dict[str, Dataset], Model, dict[str, GroupOptimizer]]:
    """Data, model and optimizers: what is the same on any devices."""
    jax.config.update("jax_default_matmul_precision", config.compute.matmul_precision)
    spec, train, evaluation = data.load(config.data, config.seed)
    if not evaluation[config.eval.split].num:
        raise UserError(f"config.eval.split={config.eval.split}: no such part; set config.data.validation above 0")
    with network_precision(config.compute.network_precision):
        model = models.build(config.model, spec)
    try:
        check_importance(model, config.eval.importance_samples)
    except ValueError as error:
        raise UserError(f"config.eval.{error}") from error
    return spec, train, evaluation, model, make_optimizers(config.optimizer, list(model.losses), config.train.num_steps)


def initializer(experiment: Experiment) -> tuple[Callable[[], TrainState], TrainState]:
    """A function that makes the first TrainState on the mesh, and its tree of shapes with their shardings."""
    config = experiment.config
    index = data.batch_indices(config.seed, 0, experiment.train.num, config.data.batch_size)
    batch = place_batch(experiment)(experiment.train, index)
    init, target = abstract_state(experiment, batch)
    shardings = jax.tree.map(lambda a: a.sharding, target)
    return lambda: jax.jit(init, out_shardings=shardings)(jax.random.key(config.seed), batch), target


def abstract_state(experiment: Experiment, batch: Batch) -> tuple[Callable[[Key, Batch], TrainState], TrainState]:
    """init(key, batch) -> the first TrainState, and the tree of its shapes with their shardings.

    Args:
      batch: of training examples; shapes with shardings do.
    """
    config, mesh = experiment.config, experiment.mesh
    change = data.transform(config.data, experiment.spec)

    def init(key, batch):
        batch = change(jax.random.fold_in(key, DATA_STREAM), batch)
        return init_state(experiment.model, experiment.optimizers, config.train.ema_decay, key, batch)

    init = jax.jit(init, inline=True)  # traced once, for the shapes and for what makes them
    shapes = jax.eval_shape(init, jax.random.key(config.seed), batch)
    check_rules(shapes, config.sharding.rules)
    shardings = tree_shardings(mesh, shapes, config.sharding.rules)
    return init, jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings)


class Feed(NamedTuple):
    """Where the batches of a call come from: `data` stays on the device, `entries(step, count)` goes there per call."""

    data: dict
    entries: Callable[[int, int], dict]
    fetch: Callable  # (step, data, one entry) -> batch, on the device


def make_feed(experiment: Experiment) -> Feed:
    """Indices into data on the device, or whole batches from host memory or a stream, by `config.data.placement`."""
    section, mesh, seed = experiment.config.data, experiment.mesh, experiment.config.seed
    change, size = data.transform(section, experiment.spec), experiment.config.train.steps_per_call
    num, batch_size = experiment.train.num, section.batch_size
    held = local_rows(mesh, batch_size)

    def transformed(step, batch):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), DATA_STREAM), step)
        return change(key, batch)

    def entries(step, count, read):
        steps = [read(min(step + i, step + count - 1)) for i in range(size)]
        stacked = jax.tree.map(lambda *a: np.stack(a), *steps)
        return jax.tree.map(lambda a: put_rows(mesh, a, batch_size, 1), stacked)

    def indices(step):
        return data.batch_indices(seed, step, num, batch_size).astype(np.int32)[held]

    if placement(experiment) == "device":
        kept = {name: a.reshape(kept_shape(experiment.train, a.shape)) for name, a in experiment.train.arrays.items()}
        arrays = {name: put(a, replicated(mesh)) for name, a in kept.items()}

        def gather(step, arrays, index):
            batch = experiment.train.gather(arrays, index)
            if experiment.train.gather is rows:
                batch |= {"x": batch["x"].reshape(len(index), *experiment.spec.shape)}
            return transformed(step, batch)

        return Feed(arrays, lambda step, count: entries(step, count, indices), gather)
    read = (
        _reader(experiment, held) if placement(experiment) == "stream" else lambda s: experiment.train.fetch(indices(s))
    )
    return Feed({}, lambda step, count: entries(step, count, read), lambda step, _, batch: transformed(step, batch))


def kept_shape(train: Dataset, shape: tuple[int, ...]) -> tuple[int, ...]:
    """That of an array of the training part on a device: a row for each example.

    TPUs pad the last two dimensions of an array, and would hold an image of 3 channels as one of 128.
    """
    return (shape[0], math.prod(shape[1:])) if train.gather is rows and len(shape) > 2 else shape


def _reader(experiment, held):
    """This process's rows of consecutive batches from grain's threads, opened at the first step that is asked for."""
    config, state = experiment.config, {"step": None, "batch": None, "stream": None}

    def read(step):
        if state["stream"] is None or step < state["step"]:  # at the beginning, and after a rollback
            state["stream"] = data.stream(
                experiment.train, config.seed, step, config.train.num_steps, config.data.batch_size, held
            )
            state["step"] = step - 1
        while state["step"] < step:
            state["batch"], state["step"] = next(state["stream"]), state["step"] + 1
        return state["batch"]

    return read


def placement(experiment: Experiment) -> str:
    """'device', 'host' or 'stream': as configured, or the first that fits."""
    wanted, arrays = experiment.config.data.placement, experiment.train.arrays
    if wanted != "auto":
        return wanted
    if arrays is None:
        return "stream"
    stats = jax.local_devices()[0].memory_stats()
    limit = DEVICE_SHARE * stats["bytes_limit"] if stats and "bytes_limit" in stats else ON_CPU_BYTES
    return "device" if sum(a.nbytes for a in arrays.values()) <= limit else "host"


def compile_call(experiment: Experiment, feed: Feed, train_state: TrainState, rollbacks: int = 0):
    """The train step, several at a time, compiled ahead of time for this state's shardings; the state is donated.

    Args:
      rollbacks: how often the run has gone back to an earlier step: the noise is another one each time.
    """
    entries = feed.entries(int(train_state.step), 1)
    return trace_call(experiment, feed, train_state, entries, rollbacks).lower().compile()


def trace_call(
    experiment: Experiment, feed: Feed, train_state: TrainState, entries: dict, rollbacks: int = 0
) -> jax.stages.Traced:
    """What `compile_call` compiles; for arguments on a mesh that is not there, shapes with shardings do."""
    config = experiment.config
    step = make_step(
        experiment.model,
        experiment.optimizers,
        (config.seed + ROLLBACK_STRIDE * rollbacks) % 2**31,
        config.train.ema_decay,
        config.optimizer.accumulate,
        config.train.ema_warmup,
        layout(experiment.mesh, config.sharding.rules),
    )
    shardings = jax.tree.map(lambda a: a.sharding, train_state)
    call = jax.jit(
        make_call(step, feed.fetch), donate_argnums=0, out_shardings=(shardings, replicated(experiment.mesh))
    )
    # abstract: what is computed while tracing, as by an equation solver, cannot run on devices that are not there
    with jax.sharding.use_abstract_mesh(experiment.mesh.abstract_mesh):
        return call.trace(train_state, feed.data, entries, np.int32(1))


def evaluation_key(experiment: Experiment, seed: int | None = None) -> Key:
    """The key of everything that evaluation draws: the run's own seed, or another."""
    return jax.random.fold_in(jax.random.key(experiment.config.seed if seed is None else seed), EVAL_STREAM)


def place_batch(experiment: Experiment) -> Place:
    """Reads a batch onto the mesh, of which each process reads the rows of its own devices."""
    mesh = experiment.mesh

    def place(dataset, index):
        batch = dataset.fetch(index[local_rows(mesh, len(index))])
        return jax.tree.map(lambda a: put_rows(mesh, a, len(index)), batch)

    return place
