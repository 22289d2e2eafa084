"""Transformers on tokens, as pure functions on stacked parameters: a whole sequence at once, or token by token.

Shapes are suffixes of names: B examples, L queries, M keys, D width, N heads, K features of one head.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from genflow.core import Params
from genflow.networks.attention import Turn, attend, attention, causal_attention, drop
from genflow.networks.film import FiLM
from genflow.networks.precision import precise

EXPANSION = 4  # hidden features of a block's perceptron over its width
KEPT = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_saveable, jax.checkpoint_policies.save_only_these_names("dropout")
)
LECUN = jax.nn.initializers.lecun_normal()


class Transformer(NamedTuple):
    """A `Network` on sequences that, where it is causal, also takes them one token at a time.

    init(key, x [B, L, C], cond=None) -> params
    apply(params, x, cond=None, key=None) -> [B, L, features]
    init_cache(params, batch_size) -> cache: keys and values [B, N, L, K] of each layer
    step(params, token [B, C], position, cache, cond=None) -> (apply(...)[:, position], cache), for positions in order
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]
    init_cache: Callable[..., PyTree]
    step: Callable[..., tuple[Array, PyTree]]


@precise
def transformer(width: int, num_layers: int, num_heads: int, causal: bool = False) -> Callable[[int], Transformer]:
    """Builder of transformers [B, L, C], cond [B, D] or None -> [B, L, features], zero at the start.

    Linear embedding plus learned positions, pre-norm blocks, a last layer norm and a zero-initialized linear head:
    the norm bounds the output, however large the input. `causal`: output i depends on tokens 1 .. i only.

    Reference: Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762; Xiong et al. (2020), On layer
    normalization in the transformer architecture, arXiv:2002.04745 (pre-norm).
    """
    if width % num_heads:
        raise ValueError(f"width={width} is not divisible by heads={num_heads}; choose a multiple")

    def build(features):
        def init(key, x, cond=None):
            keys = jax.random.split(key, 4)
            h = jnp.zeros((1, 1, width), x.dtype)
            position = width**-0.5 * jax.random.normal(keys[1], (x.shape[1], width), x.dtype)
            return {
                "embedding": init_dense(keys[0], x.shape[-1], width, x.dtype),
                "position": position,
                "blocks": init_blocks(keys[2], h, num_layers, num_heads, cond),
                "norm": init_norm(keys[3], h, cond),
                "head": jax.tree.map(jnp.zeros_like, init_dense(keys[0], width, features, x.dtype)),
            }

        def apply(params, x, cond=None, key=None):
            h = dense(params["embedding"], x) + params["position"]
            return head(params, apply_blocks(params["blocks"], h, cond, causal), cond)

        def init_step_cache(params, batch_size):
            return init_cache(params["blocks"], batch_size, params["position"].shape[0])

        def step(params, token, position, cache, cond=None):
            h = dense(params["embedding"], token) + params["position"][position]
            h, cache = step_blocks(params["blocks"], h, position, cache, cond)
            return head(params, h, cond), cache

        return Transformer(init, apply, init_step_cache, step)

    def head(params, h, cond):
        return dense(params["head"], layer_norm(params["norm"], h, cond))

    return build


def init_blocks(
    key: Array,
    h: Array,
    num_layers: int,
    num_heads: int,
    cond: Array | None = None,
    weights: Callable = LECUN,
    residual: Callable = LECUN,
) -> Params:
    """Parameters of `num_layers` blocks, stacked on the first axis of every leaf; h [..., D] gives width and dtype.

    Args:
      weights: initializer of the kernels; residual: of those whose output is added to h.
    """

    def init_block(key):
        keys, D = jax.random.split(key, 6), h.shape[-1]
        # no biases: those of queries and values would repeat the norm's shift, and softmax is blind to those of keys
        qkv = init_dense(keys[0], D, 3 * D, h.dtype, weights)["kernel"]
        return {
            "attention_norm": init_norm(keys[1], h, cond),
            "attention": {"kernel": qkv.reshape(D, 3, num_heads, D // num_heads)},
            "projection": init_dense(keys[2], D, D, h.dtype, residual),
            "perceptron_norm": init_norm(keys[3], h, cond),
            "hidden": init_dense(keys[4], D, EXPANSION * D, h.dtype, weights),
            "output": init_dense(keys[5], EXPANSION * D, D, h.dtype, residual),
        }

    return jax.vmap(init_block)(jax.random.split(key, num_layers))


def apply_blocks(
    params: Params,
    h_BLD: Float[Array, "B L D"],
    cond: Array | None = None,
    causal: bool = False,
    turn: Turn | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
    memory: str = "store",
) -> Float[Array, "B L D"]:
    """Pre-norm blocks, depth as a scan: h + attention(norm(h)), then h + perceptron(norm(h)).

    Args:
      turn: of queries and keys by their positions, see `rotary`.
      dropout: rate for attention weights and for what is added to h, where a key is given.
      memory: 'store', or 'remat': the backward pass computes each block again.
    """
    keys = None if key is None else jax.random.split(key, (jax.tree.leaves(params)[0].shape[0], 3))

    def block(h_BLD, inputs):
        layer, keys = inputs
        q, k, v = _query_key_value(layer, h_BLD, cond, turn)
        key_weights, *keys = (None,) * 3 if keys is None else keys
        attend = causal_attention if causal else attention
        attended = attend(q, k, v, dropout=dropout, key=key_weights)
        return _finish(layer, h_BLD, attended, cond, dropout, keys), None

    # what is cheap is computed again: stacked by the scan, it would be written and read once more than it is worth
    policy = None if memory == "remat" else KEPT
    return jax.lax.scan(jax.checkpoint(block, policy=policy, prevent_cse=False), h_BLD, (params, keys))[0]


def init_cache(params: Params, batch_size: int, length: int) -> PyTree:
    """Empty keys and values [B, N, length, K] of each layer, for `step_blocks`: read as they lie, without a copy."""
    kernel = params["attention"]["kernel"]
    layers, _, _, N, K = kernel.shape
    empty = jnp.zeros((batch_size, N, length, K), kernel.dtype)
    return [{"key": empty, "value": empty} for _ in range(layers)]


def step_blocks(
    params: Params,
    h_BD: Float[Array, "B D"],
    position: Int[Array, ""],
    cache: PyTree,
    cond: Array | None = None,
    turn: Turn | None = None,
) -> tuple[Float[Array, "B D"], PyTree]:
    """What causal `apply_blocks` gives at `position`, from this token and the cache of those before it.

    The cache is a loop carry, updated in place; scanned over as an input it would be copied at every step.
    """
    h_BLD, position, new = h_BD[:, None], jnp.asarray(position), []
    seen_M = jnp.arange(cache[0]["key"].shape[2]) <= position
    for i, memory in enumerate(cache):
        layer = jax.tree.map(lambda a, i=i: a[i], params)
        q, *now = _query_key_value(layer, h_BLD, cond, turn)
        memory = {
            name: jax.lax.dynamic_update_slice_in_dim(memory[name], a.swapaxes(1, 2), position, axis=2)
            for name, a in zip(("key", "value"), now, strict=True)
        }
        attended = attend(q[:, 0], memory["key"], memory["value"], seen_M)
        h_BLD = _finish(layer, h_BLD, attended[:, None], cond)
        new.append(memory)
    return h_BLD[:, 0], new


def _query_key_value(layer, h_BLD, cond, turn=None):
    h_BLD = layer_norm(layer["attention_norm"], h_BLD, cond)
    q, k, v = jnp.einsum("bld,dsnk->sblnk", h_BLD, layer["attention"]["kernel"])
    return (q, k, v) if turn is None else (turn(q), turn(k), v)


def _finish(layer, h_BLD, attended_BLNK, cond, dropout=0.0, keys=(None, None)):
    h_BLD += drop(keys[0], dense(layer["projection"], attended_BLNK.reshape(h_BLD.shape)), dropout)
    hidden = dense(layer["hidden"], layer_norm(layer["perceptron_norm"], h_BLD, cond))
    return h_BLD + drop(keys[1], dense(layer["output"], jax.nn.gelu(hidden)), dropout)


def init_norm(key: Array, h: Array, cond: Array | None = None) -> Params:
    """Parameters of `layer_norm` on the last axis of h."""
    ones = jnp.ones(h.shape[-1], h.dtype)
    return {"scale": ones, "shift": 0 * ones, "film": FiLM().init(key, h[:1], _first(cond)).get("params", {})}


def _first(cond):
    return None if cond is None else cond[:1]


def layer_norm(params: Params, h: Float[Array, "*B D"], cond: Array | None = None) -> Float[Array, "*B D"]:
    """FiLM(scale * (h - mean) / std + shift, cond) over the last axis; the statistics in float32 or wider.

    Reference: Ba et al. (2016), Layer normalization, arXiv:1607.06450; conditional as in Peebles and Xie (2022),
    Scalable diffusion models with transformers, arXiv:2212.09748, section 3.2 (adaptive layer norm).
    """
    centered = h.astype(jnp.promote_types(h.dtype, jnp.float32))
    centered -= centered.mean(-1, keepdims=True)
    normalized = (centered * jax.lax.rsqrt((centered**2).mean(-1, keepdims=True) + 1e-6)).astype(h.dtype)
    return FiLM().apply({"params": params["film"]}, normalized * params["scale"] + params["shift"], cond)


def init_dense(key: Array, features_in: int, features_out: int, dtype: jnp.dtype, weights: Callable = LECUN) -> Params:
    """Kernel [in, out], drawn by `weights`, and zero bias of `dense`."""
    kernel = weights(key, (features_in, features_out), dtype)
    return {"kernel": kernel, "bias": jnp.zeros(features_out, dtype)}


def dense(params: Params, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """X @ kernel + bias."""
    return x @ params["kernel"] + params["bias"]
