"""Eight fake CPU devices, a warm compilation cache and a lazy garbage collector, set before JAX is imported."""

import gc
import importlib.metadata
import os
import pathlib

import pytest

MOST_MAPS = 20_000  # of the 65,530 that Linux allows; every compiled program takes several
CACHE = pathlib.Path(__file__).resolve().parent.parent / ".jax_cache"
# The tests ask for values, not for speed: less optimization, and no cutting of modules for compilers side by side, of
# which two workers on two cores have no use. Later versions of JAX abort on the third.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if importlib.metadata.version("jaxlib") < "0.11":
    FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # On two cores un-awaited collectives of more devices than threads deadlock without NPROC.
    "NPROC": "16",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {FAST_COMPILE}",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
os.environ.update(ENVIRONMENT)
# Tracing makes millions of objects that live on: looking through them every 700 new ones is a quarter of its time.
gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Forgets compiled programs before the process runs out of memory maps: it would die of a segmentation fault."""
    yield
    maps = pathlib.Path("/proc/self/maps")  # of Linux alone
    if maps.exists() and len(maps.read_text().splitlines()) > MOST_MAPS:
        import jax

        jax.clear_caches()
