"""One step of every sampler of diffusion models, each a short function of the same signature.

A step goes from time t to an earlier s:

    step(denoise, path, key, z, t, s, memory, temperature) -> (z, memory)

with denoise(z, t) -> Denoised for a scalar t. The temperature scales the noise that a step adds. All of them work on
every path, as they see it as z = alpha x + sigma noise alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from genflow.core import Denoised, Path
from genflow.diffusion.path import at, sde, time_of_log_snr
from genflow.diffusion.transport import velocity
from genflow.samplers.langevin import langevin

Denoise = Callable[[Array, Array], Denoised]
NO_VARIANCE = "sampler='ancestral_learned': this model has learned no variance of a chain's steps; take 'ancestral'"
ALIKE = 1e-4  # two variances whose logs differ by less are one


class Sampler(NamedTuple):
    """A step, how often it asks the network, and the memory that it begins with: start(z, number of times).

    random: False where a step adds no noise, so that z_end alone decides what is drawn
    """

    step: Callable[..., tuple[Array, PyTree]]
    calls: int = 1
    start: Callable[[Array, int], PyTree] = lambda z, num_times: ()
    random: bool = True


class Reverse(NamedTuple):
    """q(z_s | z_t, x): its mean, its variance, and that of q(z_t | z_s), which is larger."""

    mean: Array
    small: Array
    large: Array


def reverse(path: Path, x: Array, z: Array, t: Array, s: Array) -> Reverse:
    """The step of the noising process from s to t, undone where x is known.

    Reference: Ho et al. (2020), Denoising diffusion probabilistic models, arXiv:2006.11239, equations 6 and 7; of any
      path Kingma et al. (2021), Variational diffusion models, arXiv:2107.00630, appendix A.
    """
    (a_t, sigma_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
    ratio, kept = a_t / a_s, sigma_s**2 / sigma_t**2
    large = jnp.maximum(sigma_t**2 - ratio**2 * sigma_s**2, 0.0)
    return Reverse(ratio * kept * z + a_s * large / sigma_t**2 * x, kept * large, large)


def renoise(path: Path, key: Array, z: Array, s: Array, t: Array, temperature: float | Array = 1.0) -> Array:
    """Draws z_t from q(z_t | z_s), t the later."""
    (a_t, sigma_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
    variance = jnp.maximum(sigma_t**2 - (a_t / a_s) ** 2 * sigma_s**2, 0.0)
    return a_t / a_s * z + temperature * jnp.sqrt(variance) * jax.random.normal(key, z.shape)


def ancestral() -> Sampler:
    """Algorithm 2 of DDPM with the variance of q(z_t | z_s), 'fixedlarge': right for data of unit variance.

    Reference: Ho et al. (2020), arXiv:2006.11239, section 3.2 and algorithm 2.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        mean, _, variance = reverse(path, denoise(z, t).x, z, t, s)
        return mean + temperature * jnp.sqrt(variance) * jax.random.normal(key, z.shape), memory

    return Sampler(step)


def ancestral_small() -> Sampler:
    """Algorithm 2 of DDPM with the variance of q(z_s | z_t, x), 'fixedsmall': right for data that are one point.

    It is `ddim` with eta = 1.

    Reference: Ho et al. (2020), arXiv:2006.11239, equation 7 and section 3.2.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        mean, variance, _ = reverse(path, denoise(z, t).x, z, t, s)
        return mean + temperature * jnp.sqrt(variance) * jax.random.normal(key, z.shape), memory

    return Sampler(step)


def ancestral_learned() -> Sampler:
    """Ancestral sampling with the variance that the network says, between 'fixedsmall' and 'fixedlarge'.

    The network speaks of a step of the grid. How far it is from the one to the other, in logs, holds for longer steps.

    Raises:
      ValueError: from the step, where the model has learned no variance.

    Reference: Nichol and Dhariwal (2021), Improved DDPM, arXiv:2102.09672, equation 15 and section 4.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        prediction = denoise(z, t)
        if prediction.log_variance is None or not path.grid:
            raise ValueError(NO_VARIANCE)
        near = t - path.end / path.grid
        of_grid, own = reverse(path, prediction.x, z, t, near), reverse(path, prediction.x, z, t, s)
        width = jnp.log(of_grid.large / of_grid.small)
        fraction = (prediction.log_variance - jnp.log(of_grid.small)) / jnp.maximum(width, ALIKE)
        std = jnp.sqrt(own.small) * (own.large / own.small) ** (0.5 * fraction)
        return own.mean + temperature * std * jax.random.normal(key, z.shape), memory

    return Sampler(step)


def ddim(eta: float = 0.0) -> Sampler:
    """z_s = alpha_s x + sqrt(sigma_s^2 - c^2) noise + c fresh noise, c = eta times the 'fixedsmall' deviation.

    Of order one; with eta = 0 it is Euler's method for the probability-flow equation in sigma / alpha.

    Reference: Song et al. (2021), Denoising diffusion implicit models, arXiv:2010.02502, equations 12 and 16.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        a_s, sigma_s, *_ = at(path, s, z.ndim)
        prediction = denoise(z, t)
        if not eta:
            return a_s * prediction.x + sigma_s * prediction.noise, memory
        std = eta * jnp.sqrt(reverse(path, prediction.x, z, t, s).small)
        mean = a_s * prediction.x + jnp.sqrt(sigma_s**2 - std**2) * prediction.noise
        return mean + temperature * std * jax.random.normal(key, z.shape), memory

    return Sampler(step, random=eta > 0)


def dpm_solver_pp_2m() -> Sampler:
    """DPM-Solver++(2M): x is a line in log(alpha / sigma) through this prediction and the one before; of order two.

    Reference: Lu et al. (2022), DPM-Solver++, arXiv:2211.01095, algorithm 2.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        (a_t, sigma_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
        before, width_before = memory
        width = jnp.log(a_s / sigma_s) - jnp.log(a_t / sigma_t)
        x = denoise(z, t).x
        ahead = x + 0.5 * width / width_before * (x - before)
        return sigma_s / sigma_t * z - a_s * jnp.expm1(-width) * ahead, (x, width)

    return Sampler(step, start=lambda z, num_times: (jnp.zeros_like(z), jnp.asarray(jnp.inf)), random=False)


def heun() -> Sampler:
    """Heun's method in y = z / alpha over sigma / alpha, where dy = noise d(sigma / alpha); of order two, 2 calls.

    Reference: Karras et al. (2022), Elucidating the design space of diffusion-based generative models,
      arXiv:2206.00364, algorithm 1 and, for paths that shrink the data, section 2.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        return _heun(denoise, path, z, t, s), memory

    return Sampler(step, calls=2, random=False)


def _heun(denoise, path, z, t, s):
    (a_t, sigma_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
    first = denoise(z, t)
    euler = a_s * first.x + sigma_s * first.noise
    return euler + 0.5 * (sigma_s - a_s * sigma_t / a_t) * (denoise(euler, s).noise - first.noise)


def heun_churn(churn: float = 40.0, lowest: float = 0.05, highest: float = 50.0, scale: float = 1.003) -> Sampler:
    """`heun`, from a little more noise than there is: z goes back to (1 + gamma) sigma / alpha first; 2 calls.

    gamma is churn over the number of times, at most sqrt(2) - 1, and never beyond the path's end. The network is asked
    between the times of a grid.

    Args:
      churn, lowest, highest, scale: the paper's S_churn, S_min and S_max (of sigma / alpha) and S_noise, as it has them
        for ImageNet at 64x64.

    Reference: Karras et al. (2022), arXiv:2206.00364, algorithm 2 and table 5.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        a_t, sigma_t, *_ = at(path, t, z.ndim)
        level = sigma_t / a_t
        gamma = jnp.where((level >= lowest) & (level <= highest), memory, 0.0)
        above = jnp.where(gamma > 0, time_of_log_snr(path, -2 * jnp.log((1 + gamma) * level)), t)
        a_above, sigma_above, *_ = at(path, above, z.ndim)
        added = jnp.sqrt(jnp.maximum((sigma_above / a_above) ** 2 - level**2, 0.0))
        z = a_above * (z / a_t + temperature * scale * added * jax.random.normal(key, z.shape))
        return _heun(denoise, path, z, above, s), memory

    def start(z, num_times):
        return jnp.asarray(min(churn / num_times, 2**0.5 - 1))

    return Sampler(step, calls=2, start=start)


def probability_flow() -> Sampler:
    """The classical Runge-Kutta method of order four for the probability-flow equation in t; 4 calls.

    The network is asked between the times of a grid.

    Reference: Song et al. (2021), Score-based generative modeling through SDEs, arXiv:2011.13456, equation 13.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        def field(z, t):
            return velocity(path, denoise(z, t), t)

        h, middle = s - t, 0.5 * (t + s)
        one = field(z, t)
        two = field(z + 0.5 * h * one, middle)
        three = field(z + 0.5 * h * two, middle)
        four = field(z + h * three, s)
        return z + h / 6 * (one + 2 * two + 2 * three + four), memory

    return Sampler(step, calls=4, random=False)


def reverse_sde() -> Sampler:
    """The Euler-Maruyama method for dz = (f z - g^2 score) dt + g dw, backwards.

    Reference: Song et al. (2021), arXiv:2011.13456, equation 6.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        point = at(path, t, z.ndim)
        f, g2 = sde(point)
        drift = f * z + g2 * denoise(z, t).noise / point.sigma
        noise = jnp.sqrt(g2 * (t - s)) * jax.random.normal(key, z.shape)
        return z + (s - t) * drift + temperature * noise, memory

    return Sampler(step)


def predictor_corrector(snr: float = 0.16) -> Sampler:
    """An ancestral step to s, then one of Langevin dynamics there; 2 calls.

    The Langevin step is 2 alpha (snr |noise| / |score|)^2 with alpha = (alpha_t / alpha_s)^2, the norms averaged over
    the batch: examples that are drawn together share it. Its noise has the norm that the temperature leaves it.

    Reference: Song et al. (2021), arXiv:2011.13456, algorithms 2 to 5; the averages are those of the official code.
    """
    ancestor = ancestral()

    def step(denoise, path, key, z, t, s, memory, temperature):
        key, key_noise = jax.random.split(key)
        z, memory = ancestor.step(denoise, path, key, z, t, s, memory, temperature)
        (a_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
        score, noise = -denoise(z, s).noise / sigma_s, jax.random.normal(key_noise, z.shape)
        size = 2 * (a_t / a_s) ** 2 * (snr * temperature * _norm(noise) / _norm(score)) ** 2
        return z + size * score + jnp.sqrt(2 * size) * noise, memory

    return Sampler(step, calls=2)


def annealed_langevin(steps: int = 100, size: float = 0.2) -> Sampler:
    """Langevin dynamics at s, where the step before left off; `steps` calls.

    A step is size sigma_s^2 score, with noise sqrt(2 size) sigma_s: the same for paths that shrink the data and for
    those that do not. The paper's epsilon / sigma_L^2 is 2 size.

    Args:
      steps: at one level.
      size: 0.2 is that of the official code, 0.1 that of the paper's algorithm with its epsilon.

    Reference: Song and Ermon (2019), Generative modeling by estimating gradients of the data distribution,
      arXiv:1907.05600, algorithm 1. There, the first level too has `steps` of its own, from uniform noise, and the
      last draw is not denoised.
    """

    def step(denoise, path, key, z, t, s, memory, temperature):
        (a_t, *_), (a_s, sigma_s, *_) = at(path, t, z.ndim), at(path, s, z.ndim)
        noise_scale = temperature * jnp.sqrt(2 * size) * sigma_s
        score = lambda z: -denoise(z, s).noise / sigma_s  # noqa: E731
        return langevin(score, key, a_s / a_t * z, steps, size * sigma_s**2, noise_scale), memory

    return Sampler(step, calls=steps)


def _norm(a):
    return jnp.sqrt((a.reshape(len(a), -1) ** 2).sum(1)).mean()


SAMPLERS = {
    "ancestral": ancestral,
    "ancestral_learned": ancestral_learned,
    "ancestral_small": ancestral_small,
    "annealed_langevin": annealed_langevin,
    "ddim": ddim,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "heun": heun,
    "heun_churn": heun_churn,
    "predictor_corrector": predictor_corrector,
    "probability_flow": probability_flow,
    "reverse_sde": reverse_sde,
}
