"""The bridge from Linen modules to pure functions."""

import flax.linen as nn

from genflow.core import Network


def pure(module: nn.Module) -> Network:
    """A Linen module that holds parameters only, as init(key, x, cond) -> params and apply(params, x, cond, key).

    The key is the module's 'dropout' stream; a module with dropout is deterministic where it has none.
    """

    def init(key, x, cond=None):
        return module.init(key, x, cond)["params"]

    def apply(params, x, cond=None, key=None):
        return module.apply({"params": params}, x, cond, rngs=None if key is None else {"dropout": key})

    return Network(init, apply)
