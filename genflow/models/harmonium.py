"""The arithmetic of restricted Boltzmann machines: free energies, Gibbs sampling, exact and tempered normalizers.

Parameters are {"kernel": [D, H], "visible_bias": [D], "hidden_bias": [H]}.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Key, Params

CHUNK = 10  # of the hidden units are enumerated at once
LARGEST_LOGIT = math.log(0.999 / 0.001)  # of a unit that was never seen to change
LOG_2PI = math.log(2 * math.pi)


class Visible(NamedTuple):
    """What the visible units of a machine are; `total` is W h, what they get from the hidden ones.

    bias(mean [D]) -> [D]: biases of independent units with these means
    field(params, v) -> [B]: the part of -E that v has alone
    mean(params, total [B, D]) -> E[v | h]
    draw(params, total, key, temperature) -> v; temperature 0: the mode
    log_normalizer(params, total) -> [B]: log of the sum over v of exp(field + v.total)
    """

    bias: Callable[..., Array]
    field: Callable[..., Array]
    mean: Callable[..., Array]
    draw: Callable[..., Array]
    log_normalizer: Callable[..., Array]


def bernoulli_visible() -> Visible:
    """v in {0, 1}: -E = a.v + v.W h + b.h."""

    def bias(mean):
        return jnp.clip(jax.scipy.special.logit(mean), -LARGEST_LOGIT, LARGEST_LOGIT)

    def draw(params, total, key, temperature):
        return _bernoulli(params["visible_bias"] + total, key, temperature)

    return Visible(
        bias,
        lambda params, v: v @ params["visible_bias"],
        lambda params, total: jax.nn.sigmoid(params["visible_bias"] + total),
        draw,
        lambda params, total: jax.nn.softplus(params["visible_bias"] + total).sum(-1),
    )


def gaussian_visible() -> Visible:
    """Real v: -E = -|v - a|^2 / 2 + v.W h + b.h, so that v given h is N(a + W h, I).

    Reference: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 13.2: data have unit
      variance, and so has the noise.
    """

    def mean(params, total):
        return params["visible_bias"] + total

    def draw(params, total, key, temperature):
        return mean(params, total) + temperature * jax.random.normal(key, total.shape)

    return Visible(
        lambda mean: mean,
        lambda params, v: -0.5 * jnp.square(v - params["visible_bias"]).sum(-1),
        mean,
        draw,
        lambda params, total: (0.5 * LOG_2PI + total * (params["visible_bias"] + 0.5 * total)).sum(-1),
    )


def free_energy(visible: Visible, params: Params, v: Float[Array, "B D"]) -> Float[Array, " B"]:
    """-log of the sum over h of exp(-E(v, h)), nats."""
    return -visible.field(params, v) - jax.nn.softplus(hidden_logits(params, v)).sum(-1)


def hidden_logits(params: Params, v: Float[Array, "B D"]) -> Float[Array, "B H"]:
    """Log-odds of each hidden unit given v."""
    return params["hidden_bias"] + v @ params["kernel"]


def hidden_mean(params: Params, v: Float[Array, "B D"]) -> Float[Array, "B H"]:
    """E[h | v]."""
    return jax.nn.sigmoid(hidden_logits(params, v))


def reconstruction(visible: Visible, params: Params, v: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """E[v | h] at h = E[h | v]."""
    return visible.mean(params, hidden_mean(params, v) @ params["kernel"].T)


def gibbs(
    visible: Visible,
    params: Params,
    key: Key,
    v: Float[Array, "B D"],
    num_steps: int,
    temperature: float | Array = 1.0,
) -> Float[Array, "B D"]:
    """`num_steps` sweeps v -> h -> v; temperature scales the noise, and at 0 every unit takes its mode."""

    def one(i, v):
        key_h, key_v = jax.random.split(jax.random.fold_in(key, i))
        h = _bernoulli(hidden_logits(params, v), key_h, temperature)
        return visible.draw(params, h @ params["kernel"].T, key_v, temperature)

    return jax.lax.fori_loop(0, num_steps, one, v)


def log_partition_exact(visible: Visible, params: Params) -> Float[Array, ""]:
    """Log Z, nats, as a sum over all 2^H states of the hidden units, some at once."""
    num = len(params["hidden_bias"])
    low = min(num, CHUNK)
    first = _states(jnp.arange(2**low), low)

    def add(i, total):
        rest = _states(i[None], num - low)
        h = jnp.concatenate([first, jnp.broadcast_to(rest, (len(first), num - low))], 1)
        terms = h @ params["hidden_bias"] + visible.log_normalizer(params, h @ params["kernel"].T)
        return jnp.logaddexp(total, jax.nn.logsumexp(terms))

    return jax.lax.fori_loop(0, 2 ** (num - low), lambda i, total: add(jnp.asarray(i), total), -jnp.inf)


def log_partition_apart(visible: Visible, params: Params) -> Float[Array, ""]:
    """Log Z, nats, of the machine without its weights."""
    alone = visible.log_normalizer(params, jnp.zeros_like(params["visible_bias"]))
    return alone + jax.nn.softplus(params["hidden_bias"]).sum()


def tempered(params: Params, base: Float[Array, " D"], beta: float | Array) -> Params:
    """The machine at inverse temperature beta: at 0 independent units with biases `base` and 0, at 1 this one.

    Reference: Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks, equation 15.
    """
    bias = (1 - beta) * base + beta * params["visible_bias"]
    scaled = {"kernel": beta * params["kernel"], "hidden_bias": beta * params["hidden_bias"]}
    return params | scaled | {"visible_bias": bias}


def tempered_log_densities(
    visible: Visible, params: Params, base: Float[Array, " D"], v: Float[Array, "B D"], betas: Float[Array, " N"]
) -> Float[Array, "N B"]:
    """-free_energy of v in the machine at each of some temperatures, with one product by the weights."""
    logits = hidden_logits(params, v)

    def at(beta):
        return visible.field(tempered(params, base, beta), v) + jax.nn.softplus(beta * logits).sum(-1)

    return jax.vmap(at)(betas)


def _bernoulli(logits, key, temperature):
    """One where the logit plus logistic noise is above zero."""
    return (logits + temperature * jax.random.logistic(key, logits.shape) > 0).astype(logits.dtype)


def _states(index, num):
    """The binary digits of integers: [N] -> [N, num]."""
    return ((index[:, None] >> jnp.arange(num)) & 1).astype(jnp.float32)
