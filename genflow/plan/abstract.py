"""A configuration's train step on devices that need not be there: every array is a shape with a sharding."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from genflow import data, models
from genflow.data.published import described, is_published
from genflow.errors import UserError
from genflow.experiment import DEVICE_SHARE, ON_CPU_BYTES, Experiment, abstract_state, kept_shape, make_feed, trace_call
from genflow.networks.precision import network_precision
from genflow.optimizers import make_optimizers
from genflow.sharding import AXES, batch_sharding, check_batch, replicated
from genflow.step import TrainState


class Abstract(NamedTuple):
    """What a run would hand to its first call, in shapes, and the call."""

    experiment: Experiment
    state: TrainState
    data: dict  # on the device; empty where batches are sent there
    entries: dict | jax.ShapeDtypeStruct  # of one call
    traced: jax.stages.Traced


def abstract(config, devices: list, memory: int | None) -> Abstract:
    """Traces the call that `genflow.train` would compile on these devices.

    Args:
      config: an experiment's; of its data the description is enough where `published` has one.
      memory: bytes of one device, which decide where the data are kept as `experiment.placement` does; None: a CPU.

    Raises:
      UserError: as for `experiment.assemble`.
    """
    jax.config.update("jax_default_matmul_precision", config.compute.matmul_precision)
    mesh = make_mesh(config.sharding, devices)
    check_batch(mesh, "data.batch_size", config.data.batch_size, config.optimizer.accumulate)
    check_batch(mesh, "eval.batch_size", config.eval.batch_size)
    spec, train, arrays = _data(config)
    config = _placed(config, arrays, memory)
    with network_precision(config.compute.network_precision):
        model = models.build(config.model, spec)
    optimizers = make_optimizers(config.optimizer, list(model.losses), config.train.num_steps)
    experiment = Experiment(config, spec, train._replace(arrays={}), {}, model, optimizers, mesh)
    batch = _on(batch_sharding(mesh), _batch(train, arrays, config.data.batch_size))
    state = abstract_state(experiment, batch)[1]
    kept, entries = _fed(experiment, arrays, batch)
    feed = make_feed(experiment)._replace(data=kept)
    return Abstract(experiment, state, kept, entries, trace_call(experiment, feed, state, entries))


def make_mesh(section: Any, devices: list) -> Mesh:
    """The mesh that `sharding.make_mesh` makes of all devices, made of these.

    Args:
      section: `config.sharding`.

    Raises:
      UserError: its axes do not multiply to the number of devices.
    """
    along = len(devices) // section.model if section.data == -1 else section.data
    if along * section.model != len(devices):
        raise UserError(f"config.sharding: data={along} x model={section.model} is not {len(devices)}, the devices")
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((along, section.model), AXES, axis_types=kinds, devices=devices)


def _data(config):
    if is_published(config.data.name):
        return described(config.data, config.data.name)
    spec, train, _ = data.load(config.data, config.seed)
    if train.arrays is None:
        one = train.fetch(np.arange(1))
        return spec, train, {k: jax.ShapeDtypeStruct((train.num, *a.shape[1:]), a.dtype) for k, a in one.items()}
    return spec, train, {k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in train.arrays.items()}


def _placed(config, arrays, memory):
    """The config with the placement that 'auto' means on this machine, were its hosts' memory large enough."""
    if config.data.placement != "auto":
        return config
    limit = ON_CPU_BYTES if memory is None else DEVICE_SHARE * memory
    fits = sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays.values()) <= limit
    config = config.copy_and_resolve_references()
    config.data.placement = "device" if fits else "host"
    return config.lock()


def _batch(train, arrays, batch_size):
    index = jax.ShapeDtypeStruct((batch_size,), np.int32)
    return jax.eval_shape(train.gather, arrays, index)


def _fed(experiment, arrays, batch):
    """The data on the devices, and what one call is sent: indices, or batches."""
    config, mesh = experiment.config, experiment.mesh
    steps, by_row = config.train.steps_per_call, batch_sharding(mesh, 1)
    if config.data.placement == "device":
        index = jax.ShapeDtypeStruct((steps, config.data.batch_size), np.int32, sharding=by_row)
        kept = {k: jax.ShapeDtypeStruct(kept_shape(experiment.train, a.shape), a.dtype) for k, a in arrays.items()}
        return _on(replicated(mesh), kept), index
    stacked = {k: jax.ShapeDtypeStruct((steps, *a.shape), a.dtype) for k, a in batch.items()}
    return {}, _on(by_row, stacked)


def _on(sharding, shapes):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes)
