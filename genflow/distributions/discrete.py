"""Distributions of integers 0 .. bins - 1 as functions of a network's output: masses in nats, in float32 or wider.

An `Output` is what a network says of the values at one site: a gray pixel, the channels of a pixel, a sample of sound,
a token. Every mass sums to one over its support, however extreme the parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MAX_LOG_SCALE = 20.0  # of a mixture: flat over any range of integers, and still finite in float32


class Output(NamedTuple):
    """The distribution of C integers, given raw [..., num_params] by a network.

    log_prob(raw, x [..., C]) -> [...] nats
    sample(key, raw, temperature=1.0) -> [..., C] int32; temperature 0 gives the mode, or the mode of the likeliest part
    truncate(raw, top_k, top_p) -> raw that keeps the likeliest values only; None where values are no tokens
    mean(raw) -> [..., C] float, the expected values (of a rounded logistic, its mean brought into the range)
    """

    num_params: int
    log_prob: Callable[[Array, Array], Array]
    sample: Callable[..., Array]
    truncate: Callable[[Array, int, float], Array] | None = None
    mean: Callable[[Array], Array] | None = None


def bernoulli() -> Output:
    """P(x = 1) = sigmoid(raw), for x in {0, 1}."""

    def sample(key, raw, temperature=1.0):
        return (raw > temperature * jax.random.logistic(key, raw.shape, raw.dtype)).astype(jnp.int32)

    def log_prob(raw, x):
        return bernoulli_log_prob(x[..., 0], wide(raw)[..., 0])  # a last axis of one would not be vectorized

    return Output(1, log_prob, sample, mean=jax.nn.sigmoid)


def categorical(bins: int) -> Output:
    """P(x) = softmax(raw)_x; a draw is argmax(raw + temperature * Gumbel noise)."""

    def log_prob(raw, x):
        log_mass = jax.nn.log_softmax(wide(raw))
        return jnp.take_along_axis(log_mass, x.astype(jnp.int32), axis=-1)[..., 0]

    def sample(key, raw, temperature=1.0):
        noise = jax.random.gumbel(key, raw.shape, raw.dtype)
        return jnp.argmax(raw + temperature * noise, axis=-1, keepdims=True).astype(jnp.int32)

    def mean(raw):
        return (jax.nn.softmax(wide(raw)) * jnp.arange(bins)).sum(-1, keepdims=True)

    return Output(bins, log_prob, sample, truncate_logits, mean)


def rounded_logistic(bins: int, min_log_scale: float = -5.0) -> Output:
    """A logistic of the data's range [-1, 1], rounded to one of the bins; raw is (mean, log_scale).

    Args:
      min_log_scale: floor of the log-scale, in units of half the data range.

    Reference: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow,
    arXiv:1606.04934, appendix C.
    """

    def split(raw):
        mean, log_scale = jnp.split(wide(raw), 2, axis=-1)
        return mean, min_log_scale + jax.nn.softplus(log_scale - min_log_scale)

    def log_prob(raw, x):
        mean, log_scale = (a[..., 0] for a in split(raw))
        return discretized_logistic_log_prob(x[..., 0], mean, log_scale, bins)

    def sample(key, raw, temperature=1.0):
        return discretized_logistic_sample(key, *split(raw), bins, temperature).astype(jnp.int32)

    def mean(raw):
        return (jnp.clip(split(raw)[0], -1, 1) + 1) / 2 * (bins - 1)

    return Output(2, log_prob, sample, mean=mean)


def truncate_logits(raw: Float[Array, "*B V"], top_k: int, top_p: float) -> Float[Array, "*B V"]:
    """Logits with -inf outside the `top_k` largest (0: all) and outside the nucleus of probability `top_p` (1: all).

    The nucleus is the smallest set of likeliest values whose probability reaches `top_p`; it is never empty. What ties
    with the last value that is kept stays.

    Reference: Fan et al. (2018), arXiv:1805.04833, section 5.1 (top-k); Holtzman et al. (2020), The curious case of
    neural text degeneration, arXiv:1904.09751, equation 2 (nucleus).
    """
    if top_k:
        raw = jnp.where(raw < jax.lax.top_k(raw, min(top_k, raw.shape[-1]))[0][..., -1:], -jnp.inf, raw)
    if top_p < 1:
        ordered = -jnp.sort(-raw, axis=-1)
        mass = jax.nn.softmax(wide(ordered))
        inside = jnp.cumsum(mass, axis=-1) - mass < max(top_p, 1e-9)
        raw = jnp.where(raw < jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True), -jnp.inf, raw)
    return raw


def logistic_mixture(bins: int, components: int, channels: int = 1, min_log_scale: float = -7.0) -> Output:
    """Mixture of rounded logistics; one component for all channels, whose means follow the channels before linearly.

    log p(x) = logsumexp_k [log pi_k + sum_c log P(x_c; mean_kc + sum_(d<c) tanh(a_kcd) x_d, scale_kc)], with x mapped
    to [-1, 1]. raw holds `components` logits, then for each channel so many means, log-scales, and coefficients.

    Args:
      min_log_scale: floor of the log-scales, in units of half the data range.

    Reference: Salimans et al. (2017), PixelCNN++, arXiv:1701.05517, equations 1 to 3.
    """
    blocks = 1 + 2 * channels + channels * (channels - 1) // 2
    width = 2 / (bins - 1)

    def split(raw):
        raw = wide(raw).reshape(*raw.shape[:-1], blocks, components)
        logits, means, log_scales, coefficients = jnp.split(raw, (1, 1 + channels, 1 + 2 * channels), axis=-2)
        return logits[..., 0, :], means, jnp.clip(log_scales, min_log_scale, MAX_LOG_SCALE), jnp.tanh(coefficients)

    def mean_of(channel, means, coefficients, before):
        first = channel * (channel - 1) // 2  # coefficients of a channel stand together: (1, 0), (2, 0), (2, 1), ...
        return means[..., channel, :] + sum(coefficients[..., first + d, :] * before[d] for d in range(channel))

    def log_prob(raw, x):
        logits, means, log_scales, coefficients = split(raw)
        scaled = [(x[..., c, None] * width - 1).astype(means.dtype) for c in range(channels)]
        log_masses = jax.nn.log_softmax(logits)
        for c in range(channels):
            mean = mean_of(c, means, coefficients, scaled)
            log_masses += discretized_logistic_log_prob(x[..., c, None], mean, log_scales[..., c, :], bins)
        return jax.nn.logsumexp(log_masses, axis=-1)

    def sample(key, raw, temperature=1.0):
        logits, means, log_scales, coefficients = split(raw)
        key_component, *keys = jax.random.split(key, channels + 1)
        noise = jax.random.gumbel(key_component, logits.shape, logits.dtype)
        chosen = jax.nn.one_hot(jnp.argmax(logits + temperature * noise, -1), components, dtype=logits.dtype)
        values, scaled = [], []
        for c, key_c in enumerate(keys):
            mean = (mean_of(c, means, coefficients, [s[..., None] for s in scaled]) * chosen).sum(-1)
            log_scale = (log_scales[..., c, :] * chosen).sum(-1)
            values.append(discretized_logistic_sample(key_c, mean, log_scale, bins, temperature))
            scaled.append(values[-1] * width - 1)
        return jnp.stack(values, axis=-1).astype(jnp.int32)

    def mean(raw):
        logits, means, _, coefficients = split(raw)
        scaled = []
        for c in range(channels):
            of_components = mean_of(c, means, coefficients, [s[..., None] for s in scaled])
            scaled.append(jnp.clip((jax.nn.softmax(logits) * of_components).sum(-1), -1, 1))
        return (jnp.stack(scaled, axis=-1) + 1) / width

    return Output(blocks * components, log_prob, sample, mean=mean)


def wide(raw: Array) -> Array:
    """The array in float32 or wider."""
    return raw.astype(jnp.promote_types(raw.dtype, jnp.float32))


def bernoulli_log_prob(x: Array, logits: Array) -> Array:
    """Log Bernoulli(x; sigmoid(logits)) for x in {0, 1}, elementwise."""
    against = jnp.where(x > 0.5, -logits, logits)
    # softplus, in the form that is twice as fast on a CPU; `where`, since maximum and abs would cancel at zero
    return -(jnp.where(against >= 0, against, 0) + jnp.log1p(jnp.exp(-jnp.abs(against))))


def discretized_logistic_log_prob(x: Array, mean: Array, log_scale: Array, bins: int) -> Array:
    """Log-mass of integer x in 0 .. bins - 1 under a logistic rounded to bins; the outer bins take the tails.

    Args:
      mean, log_scale: in units of the data range, which is mapped to [-1, 1] (bin width 2 / (bins - 1)).

    Reference: Salimans et al. (2017), PixelCNN++, arXiv:1701.05517, equation 2.
    """
    half = 1.0 / (bins - 1)
    centered = (2.0 * x / (bins - 1) - 1.0) - mean
    inverse_scale = jnp.exp(-log_scale)
    upper, lower = inverse_scale * (centered + half), inverse_scale * (centered - half)
    # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)), stable for any u > l
    width = 2 * half * inverse_scale
    inside = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-width))
    edges = jnp.where(x < 0.5, jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower))
    return jnp.where((x < 0.5) | (x > bins - 1.5), edges, inside)


def discretized_logistic_sample(
    key: Array, mean: Array, log_scale: Array, bins: int, temperature: float = 1.0
) -> Array:
    """Draws integers 0 .. bins - 1 (as floats) from the rounded logistic; `temperature` multiplies the scale."""
    x = mean + temperature * jnp.exp(log_scale) * jax.random.logistic(key, mean.shape, mean.dtype)
    return jnp.clip(jnp.round((x + 1.0) * (bins - 1) / 2.0), 0, bins - 1)


def mu_law_encode(wave: Float[Array, "*T"], bins: int = 256) -> Int[Array, "*T"]:
    """Sound in [-1, 1] to companded codes 0 .. bins - 1: sign(w) ln(1 + mu |w|) / ln(1 + mu), mu = bins - 1, rounded.

    Reference: ITU-T G.711; van den Oord et al. (2016), WaveNet, arXiv:1609.03499, section 2.2.

    >>> mu_law_encode(jnp.array([-1.0, 0.0, 1.0])).tolist()
    [0, 128, 255]
    """
    mu = bins - 1
    companded = jnp.sign(wave) * jnp.log1p(mu * jnp.abs(wave)) / jnp.log1p(mu)
    return jnp.clip(jnp.floor((companded + 1) / 2 * mu + 0.5), 0, mu).astype(jnp.int32)


def mu_law_decode(codes: Int[Array, "*T"], bins: int = 256) -> Float[Array, "*T"]:
    """Companded codes to sound in [-1, 1], the inverse of `mu_law_encode` up to rounding."""
    mu = bins - 1
    companded = 2 * codes.astype(jnp.float32) / mu - 1
    return jnp.sign(companded) * jnp.expm1(jnp.abs(companded) * jnp.log1p(jnp.float32(mu))) / mu
