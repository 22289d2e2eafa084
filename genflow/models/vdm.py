"""Variational diffusion models: a network and a noise schedule, both trained for the bound itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Model, Network, Params, Path, Spec, sum_event
from genflow.diffusion.bound import decoder_log_prob, prior_term, spread
from genflow.diffusion.path import at, diffuse, variance_preserving
from genflow.diffusion.prediction import denoised
from genflow.diffusion.schedule import SCHEDULES, Schedule, least_variance
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.networks.time_mlp import time_mlp
from genflow.networks.vdm import fourier_features, level_net


def vdm(
    spec: Spec,
    schedule: str = "linear",
    gamma_min: float = -13.3,
    gamma_max: float = 5.0,
    num_steps: int = 0,
    fourier_periods: tuple[float, ...] = (2.0, 1.0),
    width: int = 128,
    blocks: int = 32,
    dropout: float = 0.1,
    attention_everywhere: bool = False,
    memory: str = "store",
    sampler: str = "ancestral_small",
    sampler_steps: int = 1000,
    guidance: float = 0.0,
    spacing: str = "linear",
    likelihood: str = "bound",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """Images, with a network that never halves them, or vectors, with a perceptron of `width` and `blocks`.

    Args:
      schedule: gamma(t) = -log-SNR, 'fixed', a straight line; 'linear', one whose ends are learned; or 'monotone', ends
        and all between: the ends for the bound, the rest, on which it does not depend, for the least variance.
      gamma_min, gamma_max: the ends, of a learned schedule at the start; between them the network is told gamma.
      num_steps: of the chain; 0: continuous time.
      fourier_periods: of the sines and cosines of z that the network is given; of integers in bins (2 and 1 are the
        paper's for 256 bins), else in units of the data; empty: none.

    Raises:
      ValueError: a choice that does not exist, gamma_min that is not below gamma_max, a period that is not above zero.

    Reference: Kingma et al. (2021), Variational diffusion models, arXiv:2107.00630.
    """
    _check(schedule, gamma_min, gamma_max, num_steps, fourier_periods, sampler_steps)
    if len(spec.shape) == 1:
        network = time_mlp(width, blocks)(spec.dims)
    else:
        network = level_net(width, blocks, dropout, attention_everywhere, memory)(spec.shape[-1])
    noise = noise_network(network, spec, gamma_min, gamma_max, fourier_periods)
    process = variational(spec, noise, SCHEDULES[schedule](gamma_min, gamma_max), num_steps)
    sampling = Sampling(sampler, sampler_steps, guidance, spacing)
    return diffusion(spec, process, sampling, Likelihood(likelihood, rtol, atol), conditional, drop_condition)


def noise_network(
    network: Network, spec: Spec, gamma_min: float, gamma_max: float, fourier_periods: tuple[float, ...]
) -> Network:
    """E[eps | z] as z plus the network of z and its Fourier features; cond is (gamma [B], c)."""
    unit = 1.0 if spec.bins is None else 2 / (spec.bins - 1)  # the width of a bin
    periods = tuple(unit * period for period in fourier_periods)

    def given(z, cond):
        gamma, c = cond
        inputs = jnp.concatenate([z, fourier_features(z, periods)], axis=-1) if periods else z
        return inputs, ((gamma - gamma_min) / (gamma_max - gamma_min), c)

    def init(key, z, cond=None):
        return network.init(key, *given(z, cond))

    def apply(params, z, cond=None, key=None):
        return z + network.apply(params, *given(z, cond), key)

    return Network(init, apply)


def variational(spec: Spec, noise: Network, schedule: Schedule, num_steps: int = 0) -> Process:
    """The family for any network E[eps | z], cond = (gamma [B], c), and any schedule.

    The loss is the bound, KL(q(z_1 | x) || p(z_1)) + the chain or continuum - log p(x | z_0), in nats.

    Reference: Kingma et al. (2021), arXiv:2107.00630, equation 11.
    """

    def path(params):
        return schedule.path(params["schedule"], num_steps)

    def init(key, x, c):
        key, key_schedule = jax.random.split(key)
        return {"noise": noise.init(key, x, (jnp.zeros(len(x)), c)), "schedule": schedule.init(key_schedule)}

    def denoise(params, z, t, c=None, key=None):
        predicted = noise.apply(params["noise"], z, (schedule.gamma(params["schedule"], t), c), key)
        return denoised("noise", predicted, z, at(path(params), t, z.ndim))

    term = _of_step(noise, schedule, num_steps) if num_steps else _of_continuum(noise, schedule)

    def parts(params, key, x, c, drop):
        key_time, key_noise, key_first, key_drop = jax.random.split(key, 4)
        t, drawn = spread(key_time, len(x)), jax.random.normal(key_noise, x.shape)
        if num_steps:  # each of 1 .. num_steps alike, and so many times one step's term
            t = 1 + jnp.floor(num_steps * t)
        values = max(num_steps, 1) * term(params, t, x, drawn, c, key_drop if drop else None)
        return prior_term(path(params), x), values, _decoder_term(spec, path(params), key_first, x)

    def loss(params, state, key, x, c):
        prior, values, decoder = parts(params, key, x, c, drop=True)
        nll, (low, high) = prior + values + decoder, schedule.ends(params["schedule"])
        metrics = {"nll": nll, "prior_term": prior, "diffusion_term": values, "decoder_term": decoder}
        return nll, state, {k: a.mean() for k, a in metrics.items()} | {"gamma_0": low, "gamma_1": high}

    def bound(params, state, key, x, c):
        return sum(parts(params, key, x, c, drop=False))

    def terms(params, key, x, c, i):
        step, drawn = jnp.broadcast_to(jnp.maximum(i - 1.0, 1.0), len(x)), jax.random.normal(key, x.shape)
        ends = prior_term(path(params), x), _decoder_term(spec, path(params), key, x)
        return jnp.where(i == 0, ends[0], jnp.where(i == 1, ends[1], term(params, step, x, drawn, c, None)))

    if not num_steps:
        return Process(init, path, denoise, loss, bound)
    return Process(init, path, denoise, loss, bound, terms=terms, num_terms=num_steps + 1)


def _decoder_term(spec: Spec, path: Path, key: Array, x: Array) -> Float[Array, " B"]:
    """-log p(x | z_0) at one z_0."""
    return -decoder_log_prob(spec, path, x, diffuse(path, jnp.asarray(0.0), x, jax.random.normal(key, x.shape)))


def squared_error(
    noise: Network, params: Params, gamma: Float[Array, " B"], x: Array, drawn: Array, c: Array | None, key=None
) -> Float[Array, " B"]:
    """||eps - E[eps | z]||^2 at -log-SNR gamma, of the drawn eps."""
    z = diffuse(variance_preserving(jnp.negative, 0.0), gamma, x, drawn)
    return sum_event((drawn - noise.apply(params, z, (gamma, c), key)) ** 2)


def _of_continuum(noise: Network, schedule: Schedule) -> Callable[..., Float[Array, " B"]]:
    """gamma'(t) / 2 ||eps - E[eps | z]||^2, whose mean over t in [0, 1] is the continuum's term.

    Of gamma only the ends matter for it: what is between them is given the gradient of the variance, for each dimension
    of the data.

    Reference: Kingma et al. (2021), arXiv:2107.00630, equation 17 and appendix I.2.
    """

    def term(params, t, x, drawn, c, key):
        def value(inner, rest):
            (progress, rate), ((low, high), params) = inner, rest
            gamma = low + (high - low) * progress
            return 0.5 * (high - low) * rate * squared_error(noise, params, gamma, x, drawn, c, key)

        inner = jax.jvp(lambda t: schedule.progress(params["schedule"], t), (t,), (jnp.ones_like(t),))
        rest = schedule.ends(params["schedule"]), params["noise"]
        return least_variance(value, len(x) / x.size)(inner, rest)

    return term


def _of_step(noise: Network, schedule: Schedule, num_steps: int) -> Callable[..., Float[Array, " B"]]:
    """expm1(gamma(i / T) - gamma((i - 1) / T)) / 2 ||eps - E[eps | z]||^2, the term of step i = 1 .. T.

    Reference: Kingma et al. (2021), arXiv:2107.00630, equation 14.
    """

    def term(params, i, x, drawn, c, key):
        gamma, before = (schedule.gamma(params["schedule"], step / num_steps) for step in (i, i - 1))
        return 0.5 * jnp.expm1(gamma - before) * squared_error(noise, params["noise"], gamma, x, drawn, c, key)

    return term


def _check(schedule, gamma_min, gamma_max, num_steps, fourier_periods, sampler_steps):
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}")
    if gamma_min >= gamma_max:
        raise ValueError(f"gamma_min={gamma_min} must be below gamma_max={gamma_max}: noise grows")
    if num_steps < 0:
        raise ValueError(f"num_steps={num_steps}: 0 is continuous time, else give the steps of the chain")
    if num_steps and sampler_steps > num_steps + 1:
        raise ValueError(f"sampler_steps={sampler_steps}: a chain of num_steps={num_steps} has {num_steps + 1} times")
    if any(period <= 0 for period in fourier_periods):
        raise ValueError(f"fourier_periods={fourier_periods} must be above zero")
