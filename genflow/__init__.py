"""genflow: deep generative models as pure functions, one training loop, one ruler.

Importing this package imports no JAX: the command line answers before the accelerator wakes up.
"""

__version__ = "0.1.0"
