"""Transformers on tokens, as pure functions on stacked parameters: a whole sequence at once, or token by token.

Shapes are suffixes of names: B examples, L queries, M keys, D width, N heads, K features of one head.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from genflow.core import Params
from genflow.networks.film import FiLM

EXPANSION = 4  # hidden features of a block's perceptron over its width


class Transformer(NamedTuple):
    """A `Network` on sequences that, where it is causal, also takes them one token at a time.

    init(key, x [B, L, C], cond=None) -> params
    apply(params, x, cond=None, key=None) -> [B, L, features]
    init_cache(params, batch_size) -> cache: keys and values of every layer, [layers, B, L, N, K] each
    step(params, token [B, C], position, cache, cond=None) -> (apply(...)[:, position], cache), for positions in order
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]
    init_cache: Callable[..., PyTree]
    step: Callable[..., tuple[Array, PyTree]]


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


def init_blocks(key: Array, h: Array, num_layers: int, num_heads: int, cond: Array | None = None) -> Params:
    """Parameters of `num_layers` blocks, stacked on the first axis of every leaf; h [..., D] gives width and dtype."""
    return jax.vmap(lambda key: _init_block(key, h, num_heads, cond))(jax.random.split(key, num_layers))


def _init_block(key, h, num_heads, cond):
    keys, D = jax.random.split(key, 6), h.shape[-1]
    # no biases: those of queries and values would repeat the norm's shift, and softmax is blind to those of keys
    qkv = init_dense(keys[0], D, 3 * D, h.dtype)["kernel"]
    return {
        "attention_norm": init_norm(keys[1], h, cond),
        "attention": {"kernel": qkv.reshape(D, 3, num_heads, D // num_heads)},
        "projection": init_dense(keys[2], D, D, h.dtype),
        "perceptron_norm": init_norm(keys[3], h, cond),
        "hidden": init_dense(keys[4], D, EXPANSION * D, h.dtype),
        "output": init_dense(keys[5], EXPANSION * D, D, h.dtype),
    }


def apply_blocks(
    params: Params, h_BLD: Float[Array, "B L D"], cond: Array | None = None, causal: bool = False
) -> Float[Array, "B L D"]:
    """Pre-norm blocks, depth as a scan: h + attention(norm(h)), then h + perceptron(norm(h))."""
    L = h_BLD.shape[1]
    mask_LM = jnp.tril(jnp.ones((L, L), bool)) if causal else None

    def block(h_BLD, layer):
        attended = attention(*_query_key_value(layer, h_BLD, cond), mask_LM)
        return _finish(layer, h_BLD, attended, cond), None

    return jax.lax.scan(block, h_BLD, params)[0]


def init_cache(params: Params, batch_size: int, length: int) -> PyTree:
    """Empty keys and values [layers, B, length, N, K] for `step_blocks`."""
    kernel = params["attention"]["kernel"]
    layers, _, _, N, K = kernel.shape
    empty = jnp.zeros((layers, batch_size, length, N, K), kernel.dtype)
    return {"key": empty, "value": empty}


def step_blocks(
    params: Params, h_BD: Float[Array, "B D"], position: Int[Array, ""], cache: PyTree, cond: Array | None = None
) -> tuple[Float[Array, "B D"], PyTree]:
    """What causal `apply_blocks` gives at `position`, from this token and the cache of those before it.

    The cache is a loop carry, updated in place; scanned over as an input it would be copied at every step.
    """
    position = jnp.asarray(position)
    num_layers, _, length = cache["key"].shape[:3]
    mask_LM = (jnp.arange(length) <= position)[None]

    def block(carry, inputs):
        h_BLD, cache = carry
        layer, i = inputs
        q, k, v = _query_key_value(layer, h_BLD, cond)
        start = (i, 0, position, 0, 0)
        cache = {
            "key": jax.lax.dynamic_update_slice(cache["key"], k[None], start),
            "value": jax.lax.dynamic_update_slice(cache["value"], v[None], start),
        }
        attended = attention(q, cache["key"][i], cache["value"][i], mask_LM)
        return (_finish(layer, h_BLD, attended, cond), cache), None

    layers = (params, jnp.arange(num_layers, dtype=position.dtype))
    (h_BLD, cache), _ = jax.lax.scan(block, (h_BD[:, None], cache), layers)
    return h_BLD[:, 0], cache


def attention(
    q_BLNK: Float[Array, "B L N K"],
    k_BMNK: Float[Array, "B M N K"],
    v_BMNK: Float[Array, "B M N K"],
    mask_LM: Array | None = None,
) -> Float[Array, "B L N K"]:
    """softmax(q k / sqrt(K)) v for each head, over the keys where the mask is True; softmax in float32 or wider.

    Reference: Vaswani et al. (2017), arXiv:1706.03762, equation 1.
    """
    wide = jnp.promote_types(q_BLNK.dtype, jnp.float32)
    scores_BNLM = jnp.einsum("blnk,bmnk->bnlm", q_BLNK, k_BMNK, preferred_element_type=wide) * q_BLNK.shape[-1] ** -0.5
    if mask_LM is not None:
        scores_BNLM = jnp.where(mask_LM, scores_BNLM, -jnp.inf)
    weights_BNLM = jax.nn.softmax(scores_BNLM).astype(v_BMNK.dtype)
    return jnp.einsum("bnlm,bmnk->blnk", weights_BNLM, v_BMNK)


def _query_key_value(layer, h_BLD, cond):
    h_BLD = layer_norm(layer["attention_norm"], h_BLD, cond)
    return tuple(jnp.einsum("bld,dsnk->sblnk", h_BLD, layer["attention"]["kernel"]))


def _finish(layer, h_BLD, attended_BLNK, cond):
    h_BLD += dense(layer["projection"], attended_BLNK.reshape(h_BLD.shape))
    hidden = dense(layer["hidden"], layer_norm(layer["perceptron_norm"], h_BLD, cond))
    return h_BLD + dense(layer["output"], jax.nn.gelu(hidden))


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


def init_dense(key: Array, features_in: int, features_out: int, dtype: jnp.dtype) -> Params:
    """LeCun-normal kernel [in, out] and zero bias of `dense`."""
    kernel = jax.nn.initializers.lecun_normal()(key, (features_in, features_out), dtype)
    return {"kernel": kernel, "bias": jnp.zeros(features_out, dtype)}


def dense(params: Params, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """X @ kernel + bias."""
    return x @ params["kernel"] + params["bias"]
