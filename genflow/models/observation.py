"""What a latent variable model says of the data given its latents: p(x | h), with h the last of the decoder."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Params, Spec, sum_event
from genflow.dequantize import dequantizer
from genflow.distributions import Output, bernoulli, logistic_mixture, normal_log_prob, rounded_logistic

LIKELIHOODS = ("auto", "bernoulli", "gaussian", "logistic", "mixture")


class Observation(NamedTuple):
    """The distribution of events given h [B, *shape], which a decoder computes.

    shape: of h for one event
    init(key, h, x) -> params
    log_prob(params, h, x, key) -> [B] nats of the data themselves; the key is for dequantization noise, if there is any
    sample(params, key, h, temperature) -> x [B, *event] float32, in data space
    mean(params, h) -> x, likewise, but not rounded
    """

    shape: tuple[int, ...]
    init: Callable[..., Params]
    log_prob: Callable[..., Float[Array, " B"]]
    sample: Callable[..., Array]
    mean: Callable[[Params, Array], Array]


def observation(spec: Spec, likelihood: str = "auto", min_log_scale: float = -5.0, std: float = 0.0) -> Observation:
    """The likelihoods whose dimensions (for 'mixture': pixels) are independent given h.

    Args:
      likelihood: 'bernoulli' for two bins, 'logistic' (rounded) or 'mixture' (of ten of them) for integers, 'gaussian'
        for any data; 'auto': Bernoulli, logistic or, for continuous data, Gaussian.
      min_log_scale: floor of a log-scale or log-standard deviation, in units of half the data range.
      std: of the Gaussian, in units of half the data range; 0: from the decoder, for each dimension.

    Raises:
      ValueError: the likelihood does not fit the data.
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood={likelihood!r}: expected one of {', '.join(LIKELIHOODS)}")
    automatic = "gaussian" if spec.bins is None else "bernoulli" if spec.bins == 2 else "logistic"
    chosen = automatic if likelihood == "auto" else likelihood
    if chosen == "gaussian":
        return gaussian(spec, min_log_scale, std)
    if spec.bins is None or (chosen == "bernoulli") != (spec.bins == 2):
        raise ValueError(f"likelihood={likelihood!r} does not fit {spec.name}; take {automatic!r}")
    if chosen == "mixture":
        channels = spec.shape[-1]
        output = logistic_mixture(spec.bins, 10, channels, min_log_scale)
        return independent((*spec.shape[:-1], output.num_params), output)
    output = bernoulli() if chosen == "bernoulli" else rounded_logistic(spec.bins, min_log_scale)
    return independent((*spec.shape, output.num_params), output, spread=True)


def independent(shape: tuple[int, ...], output: Output, spread: bool = False) -> Observation:
    """One `Output` at every place of h.

    Args:
      spread: every scalar of an event is a site; otherwise its last axis is one.
    """

    def sites(x):
        return x[..., None] if spread else x

    def flat(a):
        return a.reshape(a.shape[0], -1, a.shape[-1])  # sums over several axes are slow on a CPU

    def values(x):
        return (x[..., 0] if spread else x).astype(jnp.float32)

    return Observation(
        shape,
        lambda key, h, x: {},
        lambda params, h, x, key=None: sum_event(output.log_prob(flat(h), flat(sites(x)))),
        lambda params, key, h, temperature=1.0: values(output.sample(key, h, temperature)),
        lambda params, h: values(output.mean(h)),
    )


def gaussian(spec: Spec, min_log_std: float = -5.0, std: float = 0.0) -> Observation:
    """Log N(y; mean, std^2) of the data; of integers, that of the uniformly dequantized ones, a bound on their mass.

    y = 2 (x + u) / bins - 1 with u ~ U[0, 1) for integers, so that log P(x) >= E_u[log N(y)] + dims log(2 / bins).

    Args:
      std: fixed standard deviation in units of y; 0: h has a log-standard deviation beside each mean.

    Reference: Kingma and Welling (2014), arXiv:1312.6114, appendix C.2; Theis et al. (2016), arXiv:1511.01844, section
    3.1, for the bound.
    """
    if std < 0:
        raise ValueError(f"std={std} must be above zero, or zero to learn it")
    noise, scale = dequantizer(spec), 1.0 if spec.bins is None else 2.0

    def split(h):
        if std:
            return h[..., 0], jnp.full(h.shape[:-1], math.log(std))
        return h[..., 0], min_log_std + jax.nn.softplus(h[..., 1] - min_log_std)

    def log_prob(params, h, x, key=None):
        y, log_weight = noise.forward({}, x, None, key)
        return sum_event(normal_log_prob(scale * y, *split(h)) + math.log(scale)) + log_weight

    def sample(params, key, h, temperature=1.0):
        mean, log_std = split(h)
        return noise.inverse((mean + temperature * jnp.exp(log_std) * jax.random.normal(key, mean.shape)) / scale)

    def mean(params, h):
        if spec.bins is None:
            return h[..., 0]
        return jnp.clip((h[..., 0] + 1) / 2 * spec.bins - 0.5, 0, spec.bins - 1)

    return Observation((*spec.shape, 1 if std else 2), lambda key, h, x: {}, log_prob, sample, mean)
