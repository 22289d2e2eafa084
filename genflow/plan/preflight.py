"""The plan of one configuration on one topology, as a dictionary that JSON can hold."""

import contextlib
import math
import re
import time
from importlib import metadata
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from genflow import collectives, provenance
from genflow import workdir as folders
from genflow.errors import UserError
from genflow.experiment import Experiment
from genflow.plan import flops, topology, traffic
from genflow.plan.abstract import Abstract, abstract
from genflow.plan.chips import Chip, chip, roofline
from genflow.plan.search import largest_batch

NO_MEMORY = ("RESOURCE_EXHAUSTED", "Ran out of memory")
USED = re.compile(r"Used ([\d.]+)([KMG]) of")  # all of it
TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMG])\)")  # beside the arguments
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def plan(config: Any, name: str, search: bool = False, quick: bool = False) -> dict:
    """Compiles the train step for a topology and says what it needs; figures are per chip unless their name says more.

    A batch that the devices do not divide is planned as the next larger one that they do; `note` says so.

    Args:
      name: of the topology; its `topology.environment` was set before JAX was imported.
      search: look for the largest batch that fits too, which compiles several times.
      quick: the environment was made for a program that is not optimized: its traffic says nothing of the true one.

    Raises:
      UserError: bad input, as `genflow.train` would tell it, or a topology that cannot be had.
    """
    where = topology.parse(name)
    devices = topology.devices(where)
    kind = chip(devices[0].device_kind)
    limit = _memory(devices[0], kind)
    wanted, (config, note) = config, _divided(config, len(devices))
    made = abstract(config, devices, limit)
    result = {"quick": quick} | _described(wanted, where.name, devices, made, note) | _work(made, len(devices))
    compiled = _compiled(made)
    result |= _memory_use(made, compiled, limit)
    if compiled["program"] is not None:
        result |= _communication(compiled["program"].as_text(), made.experiment, quick)
        result |= _time(kind, result, config)
    if search:
        result["largest_batch"] = _largest(config, devices, limit, result)
    return result


def _divided(config, num_devices):
    """The config with batches that the devices divide, and what was changed."""
    parts = {"data": num_devices * config.optimizer.accumulate, "eval": num_devices}
    changed = {}
    copy = config.copy_and_resolve_references()
    for section, number in parts.items():
        if (size := copy[section].batch_size) % number:
            copy[section].batch_size = changed[section] = -(-size // number) * number
    flags = " ".join(f"--config.{section}.batch_size={size}" for section, size in changed.items())
    return copy.lock(), f"main.py would need {flags}" if changed else ""


def _memory(device, kind):
    stats = device.memory_stats() if device.platform == "gpu" else None
    return int(stats["bytes_limit"]) if stats else kind.memory if kind else None


def _described(config, where, devices, made, note):
    planned = made.experiment.config
    return {
        "name": config.name,
        "config_hash": folders.config_hash(config),
        "slice": where,
        "device": devices[0].device_kind,
        "chips": len(devices),
        "mesh": dict(made.experiment.mesh.shape),
        "batch_size": planned.data.batch_size,
        "note": note,
        "num_steps": planned.train.num_steps,
        "num_parameters": sum(math.prod(a.shape) for a in jax.tree.leaves(made.state.params)),
        "num_examples": made.experiment.train.num,
        "placement": planned.data.placement,
        "matmul_precision": planned.compute.matmul_precision,
        "model_memory": planned.model.get("memory"),
        "every": any(o.every > 1 for o in made.experiment.optimizers.values()),
        "network_precision": planned.compute.network_precision,
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions() | _libtpu(),
    }


def _libtpu():
    try:
        return {"libtpu": metadata.version("libtpu")}
    except metadata.PackageNotFoundError:
        return {}


def _work(made, num_devices):
    """Operations of a step on one chip, the work cut evenly."""
    work = flops.count(made.traced.jaxpr)
    return {
        "matrix_flops": {precision: number / num_devices for precision, number in work.matrix.items()},
        "elementwise_flops": work.elementwise / num_devices,
        "open_loops": work.open_loops - 1,  # but for the loop over the steps of a call
    }


def _compiled(made: Abstract) -> dict:
    """The program, or None and the compiler's message on the memory that it would need; seconds."""
    start = time.monotonic()
    try:
        with topology.silenced(), _not_cached():
            program, refusal = made.traced.lower().compile(), ""
    except jax.errors.JaxRuntimeError as error:
        if not any(words in str(error) for words in NO_MEMORY):
            raise
        program, refusal = None, str(error)
    return {"program": program, "refusal": refusal, "seconds": time.monotonic() - start}


@contextlib.contextmanager
def _not_cached():
    """Compiles anew: a program for devices that are not there can be written to JAX's cache, but not read from it."""
    enabled = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _needed(message, held):
    """Bytes that a compiler which ran out of memory would need; None where it does not say.

    Args:
      held: bytes of the arguments.
    """
    if match := USED.search(message):
        return round(float(match[1]) * UNITS[match[2]])
    match = TEMPORARIES.search(message)
    return held + round(float(match[1]) * UNITS[match[2]]) if match else None


def _memory_use(made, compiled, limit):
    """Bytes of one chip by what they are for."""
    state, program = made.state, compiled["program"]
    trees = {"parameters": state.params, "optimizer": state.opt_state, "average": state.ema, "state": state.state}
    use = {name: shard_bytes(tree) for name, tree in (trees | {"data": (made.data, made.entries)}).items()}
    peak = _needed(compiled["refusal"], sum(use.values()))
    if program is not None:
        stats = program.memory_analysis()
        held = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        use |= {"padding": max(0, held - sum(use.values())), "temporary": stats.temp_size_in_bytes}
        use["program"] = stats.generated_code_size_in_bytes
        peak = held + use["temporary"] + use["program"]
    fits = program is not None and (limit is None or peak <= limit)
    seconds = {"compile_seconds": round(compiled["seconds"], 1)}
    return {"memory": use, "peak_bytes": peak, "memory_bytes": limit, "fits": fits} | seconds


def shard_bytes(tree: Any) -> int:
    """Bytes that one device holds of a tree of shapes with shardings, before a device's own padding."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in leaves if _is_plain(a.dtype))


def _is_plain(dtype):
    return not jax.dtypes.issubdtype(dtype, jax.dtypes.extended)


def _communication(hlo, experiment: Experiment, quick):
    found, steps = collectives.collectives(hlo), experiment.config.train.steps_per_call
    return {
        "hbm_bytes": None if quick else traffic.memory_bytes(hlo, steps),
        "collectives": [c._asdict() for c in found],
        "sent_bytes": collectives.sent_bytes(hlo, steps),
    }


def _time(kind: Chip | None, result, config):
    """The roofline; nothing for devices of which no rates are known."""
    if kind is None:
        return {"seconds": None}
    seconds = roofline(kind, result["matrix_flops"], result["hbm_bytes"] or 0, result["sent_bytes"])
    hours = seconds["step"] * config.train.num_steps / 3600
    return {
        "seconds": seconds,
        "bound_by": max(("compute", "memory", "collectives"), key=seconds.get),
        "images_per_second": config.data.batch_size / seconds["step"],
        "hours": hours,
        "chip_hours": hours * result["chips"],
    }


def _largest(config, devices, limit, result):
    if limit is None:
        raise UserError("--largest_batch: a CPU's memory is not known; name a slice of TPUs or gpu")

    def peak(batch_size):
        copy = config.copy_and_resolve_references()
        copy.data.batch_size = batch_size
        made = abstract(copy.lock(), devices, limit)
        return _peak(_memory_use(made, _compiled(made), limit), limit)

    unit = len(devices) * config.optimizer.accumulate
    known = {config.data.batch_size: _peak(result, limit)}
    return largest_batch(peak, unit, limit, result["num_examples"], known)


def _peak(use, limit):
    """The peak in bytes, above the limit where the program does not fit: a compiler keeps a little for itself."""
    return use["peak_bytes"] if use["fits"] else use["peak_bytes"] and max(use["peak_bytes"], limit + 1)
