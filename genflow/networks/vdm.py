"""The score network of variational diffusion models: a U-Net of one level, which never halves its images, as two scans.

Blocks on the way down emit their outputs, blocks on the way up are given them, the last one first; so compile time does
not grow with depth. Parameters are those of `unet`, of all blocks down and of all blocks up stacked.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Network
from genflow.networks.nvae import randomized
from genflow.networks.precision import inner_dtype, precise
from genflow.networks.unet import (
    MEMORY,
    Options,
    Part,
    conv,
    conv_params,
    embed,
    normalization_params,
    normalized,
    part_params,
    run_part,
)


def fourier_features(z: Float[Array, "B *event C"], periods: tuple[float, ...]) -> Float[Array, "B *event F"]:
    """Sin and cos of 2 pi z / period for every period, channel by channel: the finest digits of z, as large numbers.

    >>> fourier_features(jnp.zeros((1, 1)), (1.0,)).tolist()
    [[0.0, 1.0]]

    Reference: Kingma et al. (2021), Variational diffusion models, arXiv:2107.00630, appendix C.
    """
    angles = [2 * math.pi / period * z for period in periods]
    return jnp.concatenate([f(angle) for f in (jnp.sin, jnp.cos) for angle in angles], axis=-1)


@precise(exact_inputs=True)
def level_net(
    width: int,
    blocks: int,
    dropout: float = 0.0,
    attention_everywhere: bool = False,
    memory: str = "store",
) -> Callable[[int], Network]:
    """Builder of networks [B, H, W, C], cond (t [B] in [0, 1], c [B, D] or None) -> [B, H, W, features]; zero at first.

    `blocks` residual blocks down, two in the middle with attention between them, blocks + 1 up, with a skip connection
    from each way down; all `width` channels wide, at full resolution.

    Args:
      dropout: rate, inside residual blocks.
      attention_everywhere: after the other blocks too; one head.
      memory: what the backward pass keeps: 'store' everything, 'remat' what enters a block.

    Raises:
      ValueError: no block or no channel, a memory that does not exist, a rate outside [0, 1).

    Reference: Kingma et al. (2021), arXiv:2107.00630, appendix B, and the official code.
    """
    if min(width, blocks) < 1:
        raise ValueError(f"width={width} and blocks={blocks} must be above zero")
    if memory not in MEMORY:
        raise ValueError(f"memory={memory!r}: expected one of {', '.join(MEMORY)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
    options = Options(1, dropout, False, "conv", False)
    keep = jax.checkpoint if memory == "remat" else lambda body: body
    parts = {
        "down": Part("down", width, width, attention_everywhere),
        "middle_0": Part("middle_0", width, width, True),
        "middle_1": Part("middle_1", width, width),
        "up": Part("up", 2 * width, width, attention_everywhere),
    }
    return lambda features: Network(
        _initializer(parts, options, blocks, features), _evaluation(parts, options, blocks, keep)
    )


def _initializer(parts, options, blocks, features):
    width = parts["down"].features
    copies = {"down": blocks, "up": blocks + 1}

    def init(key, x, cond=None):
        params = {
            "time_0": conv_params(1, width, 4 * width),
            "time_1": conv_params(1, 4 * width, 4 * width),
            "input": conv_params(3, x.shape[-1], width),
            "normalization": normalization_params(width),
            "output": conv_params(3, width, features, 0.0),
        }
        if cond[1] is not None:
            params["condition"] = {"kernel": conv_params(1, cond[1].shape[-1], 4 * width)["kernel"]}
        for name, part in parts.items():
            params[name] = part_params(part, 4 * width, options)
        for name, num in copies.items():
            params[name] = jax.tree.map(lambda a, num=num: jnp.broadcast_to(a, (num, *a.shape)), params[name])
        return randomized(key, params)

    return init


def _evaluation(parts, options, blocks, keep):
    width = parts["down"].features

    def apply(params, x, cond, key=None):
        dtype = inner_dtype(x, params["input"]["kernel"])
        told = embed(params, width, *cond).astype(dtype)
        if key is None:
            key_down = key_first = key_second = key_up = None
        else:
            key_down, key_first, key_second, key_up = jax.random.split(key, 4)
            key_down, key_up = jax.random.split(key_down, blocks), jax.random.split(key_up, blocks + 1)

        @keep
        def down(h, inputs):
            h = run_part(options, parts["down"], inputs[0], h, told, inputs[1])
            return h, h

        @keep
        def up(h, inputs):
            p, skip, key = inputs
            return run_part(options, parts["up"], p, jnp.concatenate([h, skip], axis=-1), told, key), None

        first = conv(params["input"], x).astype(dtype)
        h, skips = jax.lax.scan(down, first, (params["down"], key_down))
        h = run_part(options, parts["middle_0"], params["middle_0"], h, told, key_first)
        h = run_part(options, parts["middle_1"], params["middle_1"], h, told, key_second)
        skips = jnp.concatenate([first[None], skips])
        h, _ = jax.lax.scan(up, h, (params["up"], skips, key_up), reverse=True)
        y = conv(params["output"], normalized(params["normalization"], h, jax.nn.silu))
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    return apply
