"""Terms of the variational bound -log p(x) <= prior + chain or continuum + decoder, nats per example.

Any path has the same: what is not variance preserving is so up to a scale of z.

Reference: Kingma et al. (2021), Variational diffusion models, arXiv:2107.00630, equations 11 to 18.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Denoised, Key, Path, Spec, sum_event
from genflow.diffusion.path import at, diffuse, log_snr, time_of_log_snr
from genflow.distributions import normal_kl, normal_log_prob

GOLDEN_RATIO = (5**0.5 - 1) / 2


def prior_term(path: Path, x: Float[Array, "B *event"]) -> Float[Array, " B"]:
    """KL(q(z_end | x) || N(0, prior_std^2))."""
    point = at(path, jnp.asarray(path.end), x.ndim)
    return sum_event(normal_kl(point.alpha * x, jnp.log(point.sigma), 0.0, jnp.log(path.prior_std)))


def decoder_log_prob(spec: Spec, path: Path, x: Array, z: Array) -> Float[Array, " B"]:
    """log p(x | z_start): of integers, each the likelier the nearer z / alpha; of continuous data a normal density.

    Args:
      x: scaled data, integers in the middle of their bins.

    Reference: Kingma et al. (2021), arXiv:2107.00630, equation 8.
    """
    point = at(path, jnp.asarray(path.start), x.ndim)
    mean, std = z / point.alpha, point.sigma / point.alpha
    if spec.bins is None:
        return sum_event(normal_log_prob(x, mean, jnp.log(std)))
    values = jnp.linspace(-1.0, 1.0, spec.bins)

    def normalizer(mean):  # a row of every event at a time: all bins at once would be hundreds of copies of the batch
        return jax.nn.logsumexp(-0.5 * ((mean[..., None] - values) / std) ** 2, axis=-1)

    normalizers = jnp.moveaxis(jax.lax.map(normalizer, jnp.moveaxis(mean, 1, 0)), 0, 1)
    return sum_event(-0.5 * ((x - mean) / std) ** 2 - normalizers)


def spread(key: Key, num: int) -> Float[Array, " num"]:
    """Numbers that are each uniform in [0, 1), and evenly spread, all of them and any first few: means vary far less.

    Steps of the golden ratio from a random start, where the paper takes steps of 1 / num: a batch that is filled up
    keeps its first examples only, which then had seen a part of the times.

    Reference: Kingma et al. (2021), arXiv:2107.00630, appendix I.1.
    """
    steps = np.arange(num) * GOLDEN_RATIO % 1.0
    return (jax.random.uniform(key) + jnp.asarray(steps, jnp.float32)) % 1.0


def continuous_bound(
    spec: Spec, path: Path, denoise: Callable[[Array, Array], Denoised], key: Key, x: Float[Array, "B *event"]
) -> Float[Array, " B"]:
    """-log p(x) is at most its mean over keys; one network call, denoise(z, t [B]), at a random time of each example.

    The continuum's term is E ||noise - predicted noise||^2 / 2 times the range of log-SNR, in which times are uniform:
    the bound is the same for every path between the same ends, its variance is not.

    Reference: Kingma et al. (2021), arXiv:2107.00630, equations 11, 17 and 18.
    """
    key_time, key_noise, key_first = jax.random.split(key, 3)
    most, least = (log_snr(path, jnp.asarray(t)) for t in (path.start, path.end))
    t = time_of_log_snr(path, most + (least - most) * spread(key_time, len(x)))
    noise = jax.random.normal(key_noise, x.shape)
    error = noise - denoise(diffuse(path, t, x, noise), t).noise
    z = diffuse(path, jnp.asarray(path.start), x, jax.random.normal(key_first, x.shape))
    chain = 0.5 * (most - least) * sum_event(error**2)
    return prior_term(path, x) + chain - decoder_log_prob(spec, path, x, z)
