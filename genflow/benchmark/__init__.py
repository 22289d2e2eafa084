"""Timings beside other systems, each in a process of its own: `python scripts/benchmark.py`.

Importing this package imports neither JAX nor PyTorch: the process that conducts the turns must leave cores and
accelerator memory to the contestants.
"""
