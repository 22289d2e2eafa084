"""The machines that a plan can be made for: slices of TPUs, CPU devices, the attached GPUs. JAX is imported late."""

import contextlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from genflow.errors import UserError

# Slices that can be rented, by generation; libtpu knows others.
SLICES = {
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
}
MOST_CPUS = 64
# libtpu asks nobody whether there is a TPU, and lets other processes compile for one as well.
WITHOUT_TPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


class Topology(NamedTuple):
    """A kind of device and how many of them there are."""

    name: str  # as it was given, e.g. v5e:4x4, cpu:8, gpu
    platform: str  # tpu, cpu or gpu
    chips: int  # 0: those that are attached


def parse(name: str) -> Topology:
    """The topology that a name means.

    Raises:
      UserError: no such topology; the message lists the known ones.
    """
    kind, _, shape = name.partition(":")
    sizes = [int(size) for size in shape.split("x")] if re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2}", shape) else []
    if kind == "cpu" and len(sizes) == 1 and sizes[0] <= MOST_CPUS:
        return Topology(name, "cpu", sizes[0])
    if name == "gpu":
        return Topology(name, "gpu", 0)
    if kind in SLICES and shape in SLICES[kind]:
        chips = 1
        for size in sizes:
            chips *= size
        return Topology(name, "tpu", chips)
    known = "; ".join(f"{k}:{', '.join(shapes)}" for k, shapes in SLICES.items())
    raise UserError(f"--topology={name!r}: expected one of {known}; cpu:N of 1 .. {MOST_CPUS} devices; or gpu")


def environment(topology: Topology, quick: bool = False) -> dict[str, str]:
    """Variables that must be set before JAX is imported.

    Args:
      quick: let the compiler of TPUs take as little trouble as it can.
    """
    if topology.platform == "gpu":
        return WITHOUT_TPU
    quiet = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if topology.platform == "tpu":
        return quiet | WITHOUT_TPU | ({"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0"} if quick else {})
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={topology.chips}"
    return quiet | {"NPROC": "16", "XLA_FLAGS": flags.strip()}


def devices(topology: Topology) -> list:
    """The topology's devices: described ones of a TPU slice, to compile for, or those that are there.

    Raises:
      UserError: libtpu is not installed or does not know the slice; no GPU is attached; too few CPU devices.
    """
    import jax

    if topology.platform == "tpu":
        return list(_described(topology).devices)
    try:
        with silenced():
            found = jax.devices(topology.platform)
    except RuntimeError as error:
        raise UserError(f"--topology={topology.name}: JAX finds none on this machine; name a slice of TPUs") from error
    if topology.chips > len(found):
        flag = f"--xla_force_host_platform_device_count={topology.chips}"
        raise UserError(f"--topology={topology.name}: JAX shows {len(found)} CPU devices; set XLA_FLAGS={flag}")
    return found[: topology.chips or None]


def _described(topology):
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--topology={topology.name} needs the compiler for TPUs: pip install -e '.[tpu]'")
    from jax.experimental import topologies

    bounds = {"chips_per_host_bounds": (1, 1, 1)} if topology.chips == 1 else {}
    with silenced() as noise:
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **bounds)
        except Exception as error:  # what a version of libtpu raises is its own affair
            lines = str(error).strip().splitlines() or noise() or ["no reason given"]
            raise UserError(f"--topology={topology.name}: libtpu cannot describe it ({lines[0][:200]})") from error


@contextlib.contextmanager
def silenced() -> Iterator:
    """Keeps what C++ writes to standard error off the terminal; yields a function that returns its lines so far."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)

        def written():
            file.seek(0)
            return file.read().decode("utf-8", "replace").splitlines()

        try:
            yield written
        finally:
            os.dup2(saved, 2)
            os.close(saved)
