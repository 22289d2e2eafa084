"""Attention, and what it is used with: rotary positions, dropout.

Shapes are suffixes of names: B examples, L queries, M keys, N heads, K features of one head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

PIECE, MAX_PIECES = 64, 8  # queries of causal attention that share their keys: at least so many, and how many pieces
ROTARY_BASE = 10_000.0
Turn = Callable[[Array], Array]


def attention(
    q_BLNK: Float[Array, "B L N K"],
    k_BMNK: Float[Array, "B M N K"],
    v_BMNK: Float[Array, "B M N K"],
    mask_LM: Array | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Float[Array, "B L N K"]:
    """softmax(q k / sqrt(K)) v for each head, over the keys where the mask is True; softmax in float32 or wider.

    Reference: Vaswani et al. (2017), arXiv:1706.03762, equation 1.
    """
    wide = jnp.promote_types(q_BLNK.dtype, jnp.float32)
    scores_BNLM = jnp.einsum("blnk,bmnk->bnlm", q_BLNK, k_BMNK, preferred_element_type=wide) * q_BLNK.shape[-1] ** -0.5
    if mask_LM is not None:
        scores_BNLM = jnp.where(mask_LM, scores_BNLM, -jnp.inf)
    weights_BNLM = drop(key, jax.nn.softmax(scores_BNLM), dropout).astype(v_BMNK.dtype)
    return jnp.einsum("bnlm,bmnk->blnk", weights_BNLM, v_BMNK)


def causal_attention(
    q_BLNK: Float[Array, "B L N K"],
    k_BLNK: Float[Array, "B L N K"],
    v_BLNK: Float[Array, "B L N K"],
    dropout: float = 0.0,
    key: Array | None = None,
) -> Float[Array, "B L N K"]:
    """`attention` of each query over the keys up to its own, in pieces of queries: half of the work is never done."""
    L = q_BLNK.shape[1]
    size = -(-L // max(min(L // PIECE, MAX_PIECES), 1))
    pieces = []
    for start in range(0, L, size):
        stop = min(start + size, L)
        mask_LM = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)
        key_piece = None if key is None else jax.random.fold_in(key, start)
        pieces.append(attention(q_BLNK[:, start:stop], k_BLNK[:, :stop], v_BLNK[:, :stop], mask_LM, dropout, key_piece))
    return jnp.concatenate(pieces, axis=1)


def attend(
    q_BNK: Float[Array, "B N K"],
    k_BNMK: Float[Array, "B N M K"],
    v_BNMK: Float[Array, "B N M K"],
    seen_M: Bool[Array, " M"],
) -> Float[Array, "B N K"]:
    """`attention` of one query over the keys that it sees, all of a head side by side."""
    wide = jnp.promote_types(q_BNK.dtype, jnp.float32)
    scores_BNM = jnp.einsum("bnk,bnmk->bnm", q_BNK, k_BNMK, preferred_element_type=wide) * q_BNK.shape[-1] ** -0.5
    weights_BNM = jax.nn.softmax(jnp.where(seen_M, scores_BNM, -jnp.inf)).astype(v_BNMK.dtype)
    return jnp.einsum("bnm,bnmk->bnk", weights_BNM, v_BNMK)


def rotary(positions: Int[Array, " L"], features: int) -> Turn:
    """Turns the pairs (a_j, a_(j + K/2)) of queries or keys [B, L, N, K] by the angles position * 10000^(-2j/K).

    A product of a query and a key then depends on the distance of their positions.

    Reference: Su et al. (2021), RoFormer, arXiv:2104.09864, equation 34, whose pairs are (a_(2j-1), a_(2j)).
    """
    half = features // 2
    angles = positions[:, None, None] * ROTARY_BASE ** (-jnp.arange(half) / half)

    def turn(a_BLNK):
        cos, sin = (f(angles).astype(a_BLNK.dtype) for f in (jnp.cos, jnp.sin))
        first, second = a_BLNK[..., :half], a_BLNK[..., half:]
        return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)

    return turn


def drop(key: Array | None, a: Array, rate: float) -> Array:
    """Dropout: entries are zero with probability `rate`, the others scaled by 1 / (1 - rate); `a` without a key."""
    if key is None or not rate:
        return a
    bits = jax.random.bits(key, a.shape, jnp.uint16)  # half of the work of a float's, and fine enough for a rate
    kept = checkpoint_name(bits >= round(rate * 2**16), "dropout")
    return jnp.where(kept, a / (1 - rate), 0)
