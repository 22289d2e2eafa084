"""The decoder-only transformer on tokens, with positions in a line or on a grid."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genflow.core import CausalNetwork
from genflow.networks.attention import drop, rotary
from genflow.networks.precision import precise
from genflow.networks.transformer import apply_blocks, init_blocks, init_cache, init_norm, layer_norm, step_blocks

STDDEV = 0.02  # of all weights at the start
WEIGHTS = jax.nn.initializers.normal(STDDEV)


@precise
def gpt(
    grid: tuple[int, ...],
    bins: int,
    width: int,
    num_layers: int,
    num_heads: int,
    dropout: float = 0.0,
    positions: str = "learned",
    tied: bool = True,
    memory: str = "store",
) -> Callable[[int], CausalNetwork]:
    """h_i = e(x_(i-1)) + position_i, pre-norm causal blocks, raw_i = norm(h_i) W; before the first site, a learned e.

    Builder num_params -> CausalNetwork on sites [B, L, 1], L the product of `grid`. A condition is mapped linearly and
    added to every h_i. It starts near the uniform distribution.

    Args:
      grid: how the sites lie, in raster order: (length,) for text, (height, width, channels) for sub-pixels. A learned
        position is the sum of one embedding for each axis.
      positions: 'learned', or 'rotary': queries and keys are turned by angles proportional to their place in the order.
      tied: W is the transposed embedding e; num_params must be `bins`.
      memory: 'store', or 'remat': the backward pass computes each block again.

    Reference: Radford et al. (2019), Language models are unsupervised multitask learners, section 2.3; Press and Wolf
    (2017), Using the output embedding to improve language models, arXiv:1608.05859 (tied); Su et al. (2021), RoFormer,
    arXiv:2104.09864, equation 34 (rotary).
    """
    length = math.prod(grid)
    axes = grid if positions == "learned" else ()

    def turn_at(place):
        return rotary(place, width // num_heads) if positions == "rotary" else None

    def build(num_params):
        if tied and num_params != bins:
            raise ValueError(f"tied=True needs as many outputs as values, not {num_params} for {bins}; set tied=False")

        def init(key, x, cond=None):
            keys = jax.random.split(key, 3)
            h = jnp.zeros((1, 1, width), jnp.zeros(()).dtype)
            residual = jax.nn.initializers.normal(STDDEV / math.sqrt(2 * num_layers))
            return {
                "blocks": init_blocks(keys[0], h, num_layers, num_heads, None, WEIGHTS, residual),
                "norm": init_norm(keys[1], h),
                **_init_ends(keys[2], axes, bins, width, 0 if tied else num_params, cond),
            }

        def apply(params, x, cond=None, key=None):
            before = jnp.pad(x[:, :-1, 0], ((0, 0), (1, 0)), constant_values=bins)
            h_BLD = _embed(params, before, cond) + _places(params, axes)
            key_blocks, key_embedding = (None, None) if key is None else jax.random.split(key)
            h_BLD = drop(key_embedding, h_BLD, dropout)
            turn = turn_at(jnp.arange(length))
            h_BLD = apply_blocks(params["blocks"], h_BLD, None, True, turn, dropout, key_blocks, memory)
            return _head(params, h_BLD)

        def start(params, num, cond=None):
            places = jnp.broadcast_to(_places(params, axes), (length, width))
            return {"blocks": init_cache(params["blocks"], num, length), "places": places}

        def step(params, cache, x, i, cond=None):
            i = jnp.asarray(i)
            before = jnp.where(i > 0, x[:, i - 1, 0], bins)
            h_BD = _embed(params, before[:, None], cond)[:, 0] + cache["places"][i]
            h_BD, blocks = step_blocks(params["blocks"], h_BD, i, cache["blocks"], turn=turn_at(i[None]))
            return _head(params, h_BD), cache | {"blocks": blocks}

        return CausalNetwork(init, apply, start, step)

    return build


def _init_ends(key, axes, bins, width, num_outputs, cond):
    """What is before the blocks and after them; the last row of the embedding is for what is before the first site."""
    keys = jax.random.split(key, 3 + len(axes))
    ends = {"embedding": WEIGHTS(keys[0], (bins + 1, width))}
    if sizes := {i: n for i, n in enumerate(axes) if n > 1}:
        ends["position"] = {f"axis_{i}": WEIGHTS(keys[3 + i], (n, width)) for i, n in sizes.items()}
    if num_outputs:
        ends["head"] = {"kernel": WEIGHTS(keys[1], (width, num_outputs))}
    if cond is not None:
        ends["cond"] = {"kernel": WEIGHTS(keys[2], (cond.shape[-1], width))}
    return ends


def _embed(params, tokens_BL, cond):
    # as a product: the gradient of a look-up is a scatter, which is slow on CPU
    table = params["embedding"]
    h_BLD = jax.nn.one_hot(tokens_BL, len(table), dtype=table.dtype) @ table
    return h_BLD if cond is None else h_BLD + (cond.astype(table.dtype) @ params["cond"]["kernel"])[:, None]


def _places(params, axes):
    """Sums the embeddings of each site's place on the axes, [L, D]; zero without axes."""
    total = jnp.zeros((), params["embedding"].dtype)
    for i in (i for i, n in enumerate(axes) if n > 1):
        table = params["position"][f"axis_{i}"]
        total += table.reshape(*(n if k == i else 1 for k, n in enumerate(axes)), -1)
    return total.reshape(-1, total.shape[-1]) if total.ndim else total


def _head(params, h):
    kernel = params["head"]["kernel"] if "head" in params else params["embedding"][:-1].T
    return layer_norm(params["norm"], h) @ kernel
