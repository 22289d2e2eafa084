"""How much data this machine can hold."""

import os


def physical_memory() -> int:
    """Returns the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fits_in_memory(num_bytes: int) -> bool:
    """True if the bytes leave half of the memory to everything else."""
    return 2 * num_bytes <= physical_memory()
