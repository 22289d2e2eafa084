"""Eight fake CPU devices and a warm compilation cache, set before JAX is imported."""

import os
import pathlib

CACHE = pathlib.Path(__file__).resolve().parent.parent / ".jax_cache"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # On two cores un-awaited collectives of more devices than threads deadlock without NPROC.
    "NPROC": "16",
    # Optimization level 0 compiles three times faster; the tests ask for values, not for speed.
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
os.environ.update(ENVIRONMENT)
