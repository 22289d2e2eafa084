"""What the makers of accelerators say of one chip, and how long it takes for so much work."""

from collections.abc import Mapping
from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One accelerator; rates are peaks that no program reaches."""

    name: str
    flops: Mapping[str, float]  # of matrix products by the precision of their factors, FLOP/s
    memory: int  # bytes
    bandwidth: float  # of the memory, bytes/s
    interconnect: float  # that one chip can send to its neighbours over all its links at once, bytes/s


def _tpu(name, bfloat16, gib, bandwidth, interconnect):
    """A TPU multiplies bfloat16; it makes a float32 product of 6 such passes, one of about 16 bits of 3.

    The matrix units are the same for all, so that these are the rates that float32 factors get at best; see
    https://docs.jax.dev/en/latest/jax.lax.html#jax.lax.Precision (HIGHEST: 6 passes, HIGH: 3, DEFAULT: 1).
    """
    rates = {"float32": bfloat16 / 6, "tensorfloat32": bfloat16 / 3, "bfloat16": bfloat16, "default": bfloat16}
    return Chip(name, rates, int(gib * GIB), bandwidth, interconnect)


def _gpu(name, float32, tensorfloat32, bfloat16, gigabytes, bandwidth, interconnect):
    """Dense rates, without sparsity; float32 runs on the vector units, and XLA's default is tensorfloat32."""
    rates = {"float32": float32, "tensorfloat32": tensorfloat32, "bfloat16": bfloat16, "default": tensorfloat32}
    return Chip(name, rates, int(gigabytes * 1e9), bandwidth, interconnect)


# By `device_kind`. Memory of TPUs: what their compiler says that a program can have.
# Interconnect: half of the bandwidth of both directions.
CHIPS = {
    # https://docs.cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 16 GB, 819 GBps, ICI 400 GBps both ways
    "TPU v5 lite": _tpu("TPU v5e", 197e12, 15.75, 819e9, 200e9),
    # https://docs.cloud.google.com/tpu/docs/v5p: 459 TFLOPs, 95 GB, 2765 GBps, ICI 1200 GBps both ways
    "TPU v5": _tpu("TPU v5p", 459e12, 95.74, 2765e9, 600e9),
    # https://docs.cloud.google.com/tpu/docs/v6e: 918 TFLOPs, 32 GB, 1638 GBps, ICI 800 GBps both ways
    "TPU v6 lite": _tpu("TPU v6e", 918e12, 31.25, 1638e9, 400e9),
    # https://www.nvidia.com/en-us/data-center/a100/ (SXM): NVLink 600 GB/s both ways
    "NVIDIA A100-SXM4-80GB": _gpu("A100 80 GB", 19.5e12, 156e12, 312e12, 80, 2039e9, 300e9),
    "NVIDIA A100-SXM4-40GB": _gpu("A100 40 GB", 19.5e12, 156e12, 312e12, 40, 1555e9, 300e9),
    # https://www.nvidia.com/en-us/data-center/h100/ (SXM; tensor cores halved: the page counts sparsity)
    "NVIDIA H100 80GB HBM3": _gpu("H100", 67e12, 494.5e12, 989.5e12, 80, 3350e9, 450e9),
    # https://www.nvidia.com/en-us/data-center/h200/ (SXM; halved as well)
    "NVIDIA H200": _gpu("H200", 67e12, 494.5e12, 989.5e12, 141, 4800e9, 450e9),
}


def chip(device_kind: str) -> Chip | None:
    """The facts of a kind of device, None where the table has none (a CPU, a card in a PCIe slot)."""
    return CHIPS.get(device_kind)


def roofline(chip: Chip, flops: Mapping[str, float], memory_bytes: float, sent_bytes: float) -> dict[str, float]:
    """Seconds that each part of a step takes at the chip's peak, and their maximum, `step`: a bound from below.

    Args:
      flops: of matrix products on this chip, by precision.
      memory_bytes: read from and written to the chip's memory.
      sent_bytes: to other chips.
    """
    seconds = {
        "compute": sum(number / chip.flops[precision] for precision, number in flops.items()),
        "memory": memory_bytes / chip.bandwidth,
        "collectives": sent_bytes / chip.interconnect,
    }
    return seconds | {"step": max(seconds.values())}
