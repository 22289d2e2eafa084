"""Networks made of networks: one after the other, and one block many times as a scan."""

import jax

from genflow.core import Network


def sequence(**parts: Network) -> Network:
    """Applies the parts in order; cond goes to each, the key is split among them."""

    def init(key, x, cond=None):
        params = {}
        for name, key_i in zip(parts, jax.random.split(key, len(parts)), strict=True):
            params[name] = parts[name].init(key_i, x, cond)
            x = parts[name].apply(params[name], x, cond)
        return params

    def apply(params, x, cond=None, key=None):
        for i, (name, part) in enumerate(parts.items()):
            x = part.apply(params[name], x, cond, None if key is None else jax.random.fold_in(key, i))
        return x

    return Network(init, apply)


def stack(block: Network, num_blocks: int) -> Network:
    """`num_blocks` copies of a shape-preserving block with stacked parameters, as one scan: compile time flat in depth.

    The backward pass keeps each block's input and computes the rest again.
    """

    def init(key, x, cond=None):
        def body(x, key_i):
            params = block.init(key_i, x, cond)
            return block.apply(params, x, cond), params

        return jax.lax.scan(body, x, jax.random.split(key, num_blocks))[1]

    def apply(params, x, cond=None, key=None):
        keys = None if key is None else jax.random.split(key, num_blocks)

        @jax.checkpoint
        def body(x, inputs):
            params_i, key_i = inputs
            return block.apply(params_i, x, cond, key_i), None

        return jax.lax.scan(body, x, (params, keys), num_blocks)[0]

    return Network(init, apply)
