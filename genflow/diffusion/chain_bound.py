"""The variational bound of a chain of T steps, term by term, in nats per example.

-log p(x) <= KL(q(z_T | x) || p(z_T)) + sum over i = 2 .. T of KL(q(z_(i-1) | z_i, x) || p(z_(i-1) | z_i))
             - log p(x | z_1), each term on average over z_i ~ q(z_i | x).

Reference: Ho et al. (2020), Denoising diffusion probabilistic models, arXiv:2006.11239, equations 5 to 7 and 13.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Int

from genflow.core import Denoised, Key, Spec, sum_event
from genflow.distributions import normal_kl, normal_log_prob

VARIANCES = ("large", "small", "learned")


class Chain(NamedTuple):
    """Constants of a chain of T steps, each [T + 1]; entry i belongs to step i = 1 .. T, entry 0 to the data.

    alpha, sigma: z_i = alpha x + sigma eps
    of_x, of_z: the mean of q(z_(i-1) | z_i, x) is of_x x + of_z z_i
    log_beta: log-variance of q(z_i | z_(i-1)), the most that a reverse step needs
    log_posterior: log-variance of q(z_(i-1) | z_i, x), the least; where that is 0, at i = 1, the one of i = 2
    """

    alpha: Float[np.ndarray, " T+1"]
    sigma: Float[np.ndarray, " T+1"]
    of_x: Float[np.ndarray, " T+1"]
    of_z: Float[np.ndarray, " T+1"]
    log_beta: Float[np.ndarray, " T+1"]
    log_posterior: Float[np.ndarray, " T+1"]

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha) - 1


def chain_of(betas: Float[np.ndarray, " T"]) -> Chain:
    """The constants of q(z_i | z_(i-1)) = N(sqrt(1 - beta_i) z_(i-1), beta_i), worked out in float64.

    Raises:
      ValueError: fewer than two steps.
    """
    if len(betas) < 2:
        raise ValueError(f"num_steps={len(betas)}: a chain has 2 steps or more")
    beta = np.concatenate([[0.0], np.asarray(betas, np.float64)])
    signal = np.cumprod(1 - beta)
    noise = -np.expm1(np.cumsum(np.log1p(-beta)))
    before = np.roll(noise, 1)  # of step i - 1; that of entry 0 is not used
    with np.errstate(divide="ignore", invalid="ignore"):
        of_x, of_z = np.sqrt(np.roll(signal, 1)) * beta / noise, np.sqrt(1 - beta) * before / noise
        posterior = beta * before / noise
    posterior[1] = posterior[2]
    beta[0], of_x[0], of_z[0], posterior[0] = beta[1], 1.0, 0.0, posterior[1]
    tables = np.sqrt(signal), np.sqrt(noise), of_x, of_z, np.log(beta), np.log(posterior)
    return Chain(*(table.astype(np.float32) for table in tables))


def reverse_log_variance(chain: Chain, variance: str, v: Array | None = None) -> Callable[[Array], Array]:
    """The log-variance of p(z_(i-1) | z_i) as a function of i, which broadcasts with z and may lie between two steps.

    Args:
      variance: 'large', beta_i; 'small', the variance of q(z_(i-1) | z_i, x); 'learned', the logarithm is v of the way
        from the small to the large. Step 1 of a fixed variance has the small one of step 2.

    Reference: Ho et al. (2020), arXiv:2006.11239, section 3.2, with the last step as in the official code; Nichol and
      Dhariwal (2021), Improved DDPM, arXiv:2102.09672, equation 15.
    """
    steps = np.arange(chain.num_steps + 1, dtype=np.float32)
    large, small = chain.log_beta, chain.log_posterior

    def between(table):
        return lambda i: jnp.interp(i, steps, table)

    if variance == "learned":
        return lambda i: v * between(large)(i) + (1 - v) * between(small)(i)
    return between(np.concatenate([small[:2], large[2:]]) if variance == "large" else small)


def at_step(table: Float[np.ndarray, " T+1"], i: Int[Array, "*B"], ndim: int) -> Array:
    """A constant of step i, [] or [B], shaped to broadcast against events of `ndim` axes with the batch's."""
    found = jnp.asarray(table)[i]
    return found.reshape(found.shape + (1,) * (ndim - 1)) if found.ndim else found


def noised(chain: Chain, i: Int[Array, "*B"], x: Float[Array, "B *event"], noise: Array) -> Array:
    """z_i of q(z_i | x)."""
    return at_step(chain.alpha, i, x.ndim) * x + at_step(chain.sigma, i, x.ndim) * noise


def end_term(chain: Chain, x: Float[Array, "B *event"]) -> Float[Array, " B"]:
    """KL(q(z_T | x) || N(0, I)): what the prior costs."""
    return sum_event(normal_kl(chain.alpha[-1] * x, jnp.log(chain.sigma[-1])))


def step_term(
    spec: Spec, chain: Chain, i: Int[Array, "*B"], x: Float[Array, "B *event"], prediction: Denoised
) -> Float[Array, " B"]:
    """The term of step i = 1 .. T, given what the model expects at z_i: -log p(x | z_1) where i is 1, else the KL.

    Args:
      prediction: with the log-variance of p(z_(i-1) | z_i), whose mean is of_x E[x | z_i] + of_z z_i.
    """
    is_last, of_x = at_step(np.arange(chain.num_steps + 1) == 1, i, x.ndim), at_step(chain.of_x, i, x.ndim)
    log_std_q, log_std_p = 0.5 * at_step(chain.log_posterior, i, x.ndim), 0.5 * prediction.log_variance
    kl = normal_kl(of_x * x, log_std_q, of_x * prediction.x, log_std_p)
    # a mean far outside, of an early step, would send NaN back through the branch that is not taken
    decoder = decoder_log_prob(spec, x, jnp.where(is_last, prediction.x, x), log_std_p)
    return sum_event(jnp.where(is_last, -decoder, kl))


def log_weight(
    spec: Spec, chain: Chain, predict: Callable[[Array, Array], Denoised], key: Key, x: Float[Array, "B *event"]
) -> Float[Array, " B"]:
    """log p(x, z_1 .. z_T) - log q(z_1 .. z_T | x) of one chain, drawn from q; the mean of its exponential is p(x).

    q is drawn backwards, z_T first: each step is then the logarithm of a ratio of two narrow normal densities, minus
    the expectation of which is the KL of `step_term`.

    Args:
      predict: (z, i []) -> Denoised with the log-variance of p(z_(i-1) | z_i).
    """

    def back(carry, i):
        z, total = carry
        prediction, noise = predict(z, i), jax.random.normal(jax.random.fold_in(key, i), x.shape)
        log_std_q, log_std_p = 0.5 * jnp.asarray(chain.log_posterior)[i], 0.5 * prediction.log_variance
        of_x, of_z = jnp.asarray(chain.of_x)[i], jnp.asarray(chain.of_z)[i]
        drawn = jnp.exp(log_std_q) * noise
        to_mean = of_x * (x - prediction.x) + drawn
        ratio = normal_log_prob(to_mean, 0.0, log_std_p) - (normal_log_prob(noise) - log_std_q)
        last = decoder_log_prob(spec, x, jnp.where(i == 1, prediction.x, x), log_std_p)
        return (of_x * x + of_z * z + drawn, total + sum_event(jnp.where(i == 1, last, ratio))), None

    noise = jax.random.normal(jax.random.fold_in(key, 0), x.shape)
    z = chain.alpha[-1] * x + chain.sigma[-1] * noise
    total = sum_event(normal_log_prob(z) - normal_log_prob(noise) + jnp.log(chain.sigma[-1]))
    return jax.lax.scan(back, (z, total), jnp.arange(chain.num_steps, 0, -1))[0][1]


def decoder_log_prob(spec: Spec, x: Array, mean: Array, log_std: Array) -> Array:
    """log p(x | z_1), elementwise: the mass of a bin of scaled integers, the density of continuous data."""
    if spec.bins is None:
        return normal_log_prob(x, mean, log_std)
    return discretized_normal_log_prob(x, mean, log_std, spec.bins)


def discretized_normal_log_prob(x: Array, mean: Array, log_std: Array, bins: int) -> Array:
    """Log-mass of a bin of width 2 / (bins - 1) around x in [-1, 1] under a normal; the outer bins take the tails.

    Reference: Ho et al. (2020), arXiv:2006.11239, equation 13.
    """
    half, precision = 1.0 / (bins - 1), jnp.exp(-log_std)
    lower, upper = (x - mean - half) * precision, (x - mean + half) * precision
    # the same mass in the lower tail, whose logarithm is exact: log Phi(a) + log(1 - Phi(b) / Phi(a)) with b < a
    is_above = lower + upper > 0
    low, high = jnp.where(is_above, -upper, lower), jnp.where(is_above, -lower, upper)
    log_high = log_ndtr(high)
    inside = log_high + jnp.log(-jnp.expm1(log_ndtr(low) - log_high))
    is_first, is_final = x < half - 1, x > 1 - half
    return jnp.where(is_first, log_ndtr(upper), jnp.where(is_final, log_ndtr(-lower), inside))
