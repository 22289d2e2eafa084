"""Walks between two examples, through their latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Batch, Model, Params
from genflow.hosts import to_host

PARALLEL = 1e-4  # radians; below it the arc is a straight line to rounding


def slerp(one: Float[Array, "B *event"], other: Float[Array, "B *event"], fraction: float | Array) -> Array:
    """Spherical interpolation: at equal speed along the arc from one, at 0, to the other, at 1.

    Of two independent draws of N(0, I), nearly orthogonal, any point of the arc is as long as a draw; the middle of
    the straight line is shorter by sqrt(2).

    Reference: Shoemake (1985), Animating rotation with quaternion curves; of diffusion models' latents Song et al.
      (2021), Denoising diffusion implicit models, arXiv:2010.02502, section 5.3.
    """
    axes = tuple(range(1, one.ndim))
    lengths = jnp.sqrt((one**2).sum(axes, keepdims=True) * (other**2).sum(axes, keepdims=True))
    cosine = (one * other).sum(axes, keepdims=True) / jnp.maximum(lengths, 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    sine = jnp.where(angle < PARALLEL, 1.0, jnp.sin(angle))
    near, far = (jnp.where(angle < PARALLEL, f, jnp.sin(f * angle) / sine) for f in (1 - fraction, fraction))
    return near * one + far * other


def interpolate(
    model: Model, params: Params, state, ones: Batch, others: Batch, num: int
) -> Float[np.ndarray, "P num *event"]:
    """Decoded points of the arcs between the latents of P pairs, both ends included; leaf by leaf of a tree of latents.

    What a conditional model is given is that of the nearer end.

    Raises:
      ValueError: a model without `encode` and `decode`, or fewer than two points.
    """
    if model.encode is None or model.decode is None:
        raise ValueError("interpolation needs a model that encodes and decodes")
    if num < 2:
        raise ValueError(f"num={num} points: expected 2 or more, with both ends")
    return to_host(_walk(model.encode, model.decode, num, params, state, dict(ones), dict(others)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _walk(encode, decode, num, params, state, ones, others):
    z = encode(params, state, None, {name: jnp.concatenate([a, others[name]]) for name, a in ones.items()})
    fractions, pairs = jnp.linspace(0.0, 1.0, num), len(ones["x"])

    def along(a):
        points = jax.vmap(lambda fraction: slerp(a[:pairs], a[pairs:], fraction), out_axes=1)(fractions)
        return points.reshape(pairs * num, *a.shape[1:])

    def nearer(a, b):
        ends = jnp.stack([a, b], 1)[:, (fractions > 0.5).astype(int)]
        return ends.reshape(pairs * num, *a.shape[1:])

    cond = {name: nearer(a, others[name]) for name, a in ones.items() if name != "x"}
    x = decode(params, state, jax.tree.map(along, z), cond)
    return x.reshape(pairs, num, *x.shape[1:])
