"""Paths from data to noise: what each family calls its noise schedule, its SDE or its interpolant."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Path

BISECTIONS = 40


class Point(NamedTuple):
    """A path at a time, each with as many axes as an event batch."""

    alpha: Array
    sigma: Array
    alpha_rate: Array  # d alpha / dt
    sigma_rate: Array


def at(path: Path, t: Float[Array, "*B"], ndim: int) -> Point:
    """The path at times t, [] or [B], shaped to broadcast against events of `ndim` axes with the batch's."""

    def rated(f):
        return jax.jvp(f, (t,), (jnp.ones_like(t),))

    t = jnp.asarray(t, jnp.float32)
    (alpha, alpha_rate), (sigma, sigma_rate) = rated(path.alpha), rated(path.sigma)
    shape = t.shape + (1,) * (ndim - 1) if t.ndim else ()
    return Point(*(a.reshape(shape) for a in (alpha, sigma, alpha_rate, sigma_rate)))


def sde(point: Point) -> tuple[Array, Array]:
    """(f, g^2) of the SDE dz = f z dt + g dw that has a path's marginals.

    d alpha / dt = f alpha, and d sigma^2 / dt = 2 f sigma^2 + g^2.

    >>> point = at(Path(lambda t: 1.0 - t, lambda t: t, 0.0, 1.0), jnp.asarray(0.5), 2)
    >>> [float(a) for a in sde(point)]
    [-2.0, 2.0]
    """
    rate = point.alpha_rate / point.alpha
    return rate, 2 * point.sigma * (point.sigma_rate - rate * point.sigma)


def log_snr(path: Path, t: Array) -> Array:
    """2 log(alpha / sigma)."""
    return 2.0 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def time_of_log_snr(path: Path, wanted: Array) -> Array:
    """The times at which the log-SNR has the wanted values, within the path's ends; by bisection."""

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        too_early = log_snr(path, middle) > wanted
        return jnp.where(too_early, middle, low), jnp.where(too_early, high, middle)

    low, high = jnp.full_like(wanted, path.start), jnp.full_like(wanted, path.end)
    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    return 0.5 * (low + high)


def diffuse(path: Path, t: Float[Array, "*B"], x: Array, noise: Array) -> Array:
    """z_t = alpha x + sigma noise."""
    point = at(path, t, x.ndim)
    return point.alpha * x + point.sigma * noise


def variance_preserving(log_snr: Callable[[Array], Array], start: float, end: float = 1.0, grid: int = 0) -> Path:
    """alpha^2 = sigmoid(log-SNR), sigma^2 = sigmoid(-log-SNR).

    Reference: Kingma et al. (2021), Variational diffusion models, arXiv:2107.00630, section 3.1 (gamma = -log-SNR).
    """
    return Path(
        lambda t: jnp.exp(0.5 * jax.nn.log_sigmoid(log_snr(t))),
        lambda t: jnp.exp(0.5 * jax.nn.log_sigmoid(-log_snr(t))),
        start,
        end,
        grid=grid,
    )


def chain(betas: Float[np.ndarray, " T"]) -> Path:
    """The forward process of T steps, q(x_i | x_(i-1)) = N(sqrt(1 - beta_i) x_(i-1), beta_i), at times i / T, i >= 1.

    Between these times the log-SNR is interpolated, for samplers and equations in continuous time.

    Reference: Ho et al. (2020), Denoising diffusion probabilistic models, arXiv:2006.11239, equations 2 and 4.
    """
    betas = np.asarray(betas, np.float64)
    log_alpha_bar = np.cumsum(np.log1p(-betas))
    table = log_alpha_bar - np.log(-np.expm1(log_alpha_bar))
    steps = np.arange(1, len(betas) + 1) / len(betas)
    return variance_preserving(
        lambda t: jnp.interp(t, jnp.asarray(steps, jnp.float32), jnp.asarray(table, jnp.float32)),
        1.0 / len(betas),
        grid=len(betas),
    )


def linear_betas(num_steps: int) -> Float[np.ndarray, " T"]:
    """From 1e-4 to 0.02 for 1,000 steps, and with as much noise in all for another number of them.

    Reference: Ho et al. (2020), arXiv:2006.11239, section 4; the scaling is that of Nichol and Dhariwal (2021).
    """
    scale = 1000 / num_steps
    return np.minimum(np.linspace(scale * 1e-4, scale * 0.02, num_steps), 0.999)


def cosine_betas(num_steps: int, offset: float = 0.008) -> Float[np.ndarray, " T"]:
    """beta_i = 1 - f(i / T) / f((i - 1) / T), at most 0.999, with f(t) = cos^2((t + s) / (1 + s) pi / 2).

    Reference: Nichol and Dhariwal (2021), Improved DDPM, arXiv:2102.09672, equation 17.
    """
    f = np.cos((np.arange(num_steps + 1) / num_steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


BETAS = {"linear": linear_betas, "cosine": cosine_betas}


def linear_interpolant(start: float = 1e-4, end: float = 1 - 1e-4) -> Path:
    """alpha = 1 - t, sigma = t: straight lines, the conditional optimal transport of flow matching.

    Neither end is reached, so that the log-SNR stays finite.

    Reference: Lipman et al. (2023), Flow matching, arXiv:2210.02747, equation 20 with sigma_min = 0 and time reversed.
    """
    return Path(lambda t: 1.0 - t, lambda t: t, start, end)


def vp_sde(beta_min: float = 0.1, beta_max: float = 20.0, start: float = 1e-5) -> Path:
    """dz = -beta / 2 z dt + sqrt(beta) dw with beta rising linearly from t = 0 to 1: DDPM's chain without steps.

    Args:
      start: the time of data, at which sigma is about sqrt(beta_min start).

    Reference: Song et al. (2021), Score-based generative modeling through SDEs, arXiv:2011.13456, equations 11 and 29;
      training and likelihoods start at 1e-5 in the official code, samples of images end at 1e-3.
    """

    def log_alpha(t):
        return -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min

    return Path(
        lambda t: jnp.exp(log_alpha(t)),
        lambda t: jnp.sqrt(-jnp.expm1(2 * log_alpha(t))),
        start,
        1.0,
    )


def sub_vp_sde(beta_min: float = 0.1, beta_max: float = 20.0, start: float = 1e-5) -> Path:
    """dz = -beta / 2 z dt + sqrt(beta (1 - alpha^4)) dw: alpha of `vp_sde`, sigma the square of its sigma.

    Reference: Song et al. (2021), arXiv:2011.13456, equations 12 and 29.
    """
    preserving = vp_sde(beta_min, beta_max, start)
    return preserving._replace(sigma=lambda t: preserving.sigma(t) ** 2)


def ve_sde(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Path:
    """dz = sqrt(d sigma^2 / dt) dw with sigma = sigma_min (sigma_max / sigma_min)^t: noise is added, nothing shrinks.

    sigma is in units of the scaled data. Official code has it for images in [0, 1]; for the same in [-1, 1] it doubles.

    Args:
      sigma_max: about the largest distance between two examples (Song and Ermon 2020, arXiv:2006.09011, technique 1).

    Reference: Song et al. (2021), arXiv:2011.13456, equation 9 and appendix C.
    """
    rate = float(np.log(sigma_max / sigma_min))
    return Path(jnp.ones_like, lambda t: sigma_min * jnp.exp(rate * t), 0.0, 1.0, prior_std=sigma_max)


def karras(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Path:
    """alpha = 1, sigma = t: time is the noise level.

    Reference: Karras et al. (2022), Elucidating the design space of diffusion-based generative models,
      arXiv:2206.00364, table 1.
    """
    return Path(jnp.ones_like, lambda t: t, sigma_min, sigma_max, prior_std=sigma_max)
