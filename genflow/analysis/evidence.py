"""log p(x) of a trained decoder: bounds by q(z | x), and annealed importance sampling, which needs no q.

Annealed importance sampling (AIS) walks from the prior to the posterior through f_t(z) = p(z) p(x | z)^beta_t. Its
weights have the mean p(x), so that the log of their average is low on average; a walk back from an exact draw of the
posterior, which only simulated data have, bounds log p(x) from above. What lies between ELBO and log p(x) is
KL(q(z | x) || p(z | x)), the price of variational inference.
"""

import functools
import math
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genflow.analysis.importance import effective_sample_size, log_normalizer
from genflow.analysis.posterior import DRAWS_PER_CALL, Joint, check, is_noisy
from genflow.core import Key, Model, Params
from genflow.hosts import to_host

SCHEDULES = ("sigmoid", "linear")
ACCEPTANCE, GAIN = 0.65, 0.2  # what the step size is adapted to, and how much of an error enters its logarithm
NEEDS_EXACT = "exact draws need a likelihood without dequantization noise; take likelihood='logistic'"
FIRST_STEP, JITTER = 0.5, 0.2  # a trajectory as long as an orbit would come back to where it began
PILOT, FORWARD, REVERSE, IMPORTANCE, START = range(10, 15)  # streams of an example's key, after those of `posterior`


class Annealing(NamedTuple):
    """How AIS walks: so many chains of so many intermediate distributions, each left by `num_leapfrog` steps."""

    num_chains: int = 16
    num_steps: int = 1000
    num_leapfrog: int = 10
    schedule: str = "sigmoid"  # or linear
    num_pilots: int = 4  # chains that find the step sizes, and are thrown away


class Annealed(NamedTuple):
    """One walk for every example and chain."""

    log_weights: Float[np.ndarray, "B C"]  # nats; their exponentials have the mean p(x)
    acceptance: Float[np.ndarray, " B"]
    reverse: Float[np.ndarray, "B C"] | None = None  # of the walks back, whose inverses have the mean 1 / p(x)


def temperatures(num_steps: int, schedule: str = "sigmoid") -> Float[np.ndarray, " T"]:
    """beta_0 = 0 to beta_T = 1: linear, or a sigmoid between -4 and 4, slow at both ends.

    >>> temperatures(4, "linear").tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]

    Raises:
      ValueError: no step, or an unknown schedule.
    """
    if schedule not in SCHEDULES or num_steps < 1:
        raise ValueError(f"num_steps={num_steps}, schedule={schedule!r}: at least one step, {' or '.join(SCHEDULES)}")
    fractions = np.linspace(0.0, 1.0, num_steps + 1)
    if schedule == "linear":
        return fractions
    curve = 1 / (1 + np.exp(-4 * (2 * fractions - 1)))
    return (curve - curve[0]) / (curve[-1] - curve[0])


def anneal(model: Model, params: Params, state, keys: Key, batch, settings: Annealing, exact=None) -> Annealed:
    """AIS estimates of p(x) with Hamiltonian transitions; the step size of each temperature comes from pilot chains.

    Step sizes that the walk itself adapts would bias its weights. Examples and chains are computed at once.

    Args:
      keys: of the examples, see `posterior.example_keys`.
      exact: latents from which the examples were drawn, to walk back from; see `simulate`.

    Raises:
      ValueError: no continuous latents, or settings that are none.

    Reference: Neal (2001), Annealed importance sampling, arXiv:physics/9803008; Wu et al. (2017), On the quantitative
      analysis of decoder-based generative models, arXiv:1611.04273; Grosse et al. (2015), Sandwiching the marginal
      likelihood using bidirectional Monte Carlo, arXiv:1511.02543.
    """
    latent = check(model, params, state)
    if min(settings.num_chains, settings.num_leapfrog, settings.num_pilots) < 1:
        raise ValueError(f"{settings}: every number must be above zero")
    betas = temperatures(settings.num_steps, settings.schedule)
    num, pilots, up = settings.num_chains, settings.num_pilots, _path(betas)
    walk = functools.partial(_walk, latent, settings.num_leapfrog, params, state, keys, batch)
    starts = _starts(latent, num + pilots, params, state, keys)
    _, _, sizes = walk(PILOT, starts[:, num:], *up, jnp.zeros((len(starts), len(betas))), True)
    log_weights, acceptance, _ = walk(FORWARD, starts[:, :num], *up, sizes, False)
    if exact is None:
        return Annealed(to_host(log_weights), to_host(acceptance))
    ends = jnp.repeat(Joint(latent, params, state).vectors(exact)[:, None], num, axis=1)
    reverse, _, _ = walk(REVERSE, ends, *_path(betas[::-1]), sizes[:, ::-1], False)
    return Annealed(to_host(log_weights), to_host(acceptance), to_host(reverse))


def _path(betas):
    """Temperatures in the order of a walk, and what each weighs of log p(x | z) as the chains come to it."""
    return jnp.asarray(betas, jnp.float32), jnp.asarray(np.abs(np.diff(betas, prepend=betas[0])), jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _starts(latent, num, params, state, keys):
    return jax.vmap(lambda key: Joint(latent, params, state).prior(jax.random.fold_in(key, START), num))(keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _walk(latent, num_leapfrog, params, state, keys, batch, stream, starts, betas, rises, sizes, adapts):
    """Log-weights [B, C], mean acceptance [B] and step sizes [B, T], those given or, where it adapts, those found.

    At each temperature: weigh where the chains are, then move them.
    """
    joint = Joint(latent, params, state)

    def one(key, example, v, sizes):
        transition = functools.partial(_transition, functools.partial(joint.terms, key, example), num_leapfrog)

        def step(carry, at):
            v, log_weights, log_size = carry
            key, beta, rise, given = at
            size = jnp.where(adapts, jnp.exp(log_size), given)
            keys = jax.random.split(key, len(v))
            v, log_likelihood, acceptance = jax.vmap(transition, (0, 0, None, None))(keys, v, beta, size)
            log_size += GAIN * (acceptance.mean() - ACCEPTANCE)
            return (v, log_weights + rise * log_likelihood, log_size), (acceptance.mean(), size)

        start = v, jnp.zeros(len(v)), jnp.log(FIRST_STEP)
        moves = jax.random.split(jax.random.fold_in(key, stream), len(betas)), betas, rises, sizes
        (_, log_weights, _), (acceptance, sizes) = jax.lax.scan(step, start, moves)
        return log_weights, acceptance.mean(), sizes

    return jax.vmap(one)(keys, batch, starts, sizes)


def _transition(terms, num_leapfrog, key, v, beta, size):
    """One transition that leaves p(z) p(x | z)^beta as it is, and log p(x | z) before it."""
    key_size, key = jax.random.split(key)
    size *= jax.random.uniform(key_size, minval=1 - JITTER, maxval=1 + JITTER)

    def log_density(v):
        log_prior, log_likelihood = terms(v)
        return log_prior + beta * log_likelihood, log_likelihood

    # the likelihood that weighs and the gradient that starts the trajectory are one evaluation
    (value, log_likelihood), gradient = jax.value_and_grad(log_density, has_aux=True)(v)
    here = blackjax.mcmc.hmc.HMCState(v, value, gradient)
    kernel = blackjax.hmc.build_kernel()
    there, info = kernel(key, here, lambda v: log_density(v)[0], size, jnp.ones_like(v), num_leapfrog)
    return there.position, log_likelihood, info.acceptance_rate


def importance_weights(
    model: Model, params: Params, state, keys: Key, batch, num: int, per_call: int = DRAWS_PER_CALL
) -> Float[np.ndarray, "B num"]:
    """log p(x, z) - log q(z | x) of `num` draws of q for each example, nats; `per_call` of them are in memory.

    Unlike `Model.log_weights`, with the noise of the example's key, which AIS has too: of the same quantity.

    Raises:
      ValueError: no continuous latents, or no draw.
    """
    if num < 1:
        raise ValueError(f"num={num} must be above zero")
    latent = check(model, params, state)
    sizes = -(-num // per_call), per_call
    return to_host(_weights(latent, sizes, params, state, keys, batch))[:, :num]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _weights(latent, sizes, params, state, keys, batch):
    joint, (num_calls, per_call) = Joint(latent, params, state), sizes

    def one(key, example):
        def some(key_draws):
            v, log_q = joint.posterior(key_draws, example, per_call)
            log_prior, log_likelihood = jax.vmap(functools.partial(joint.terms, key, example))(v)
            return log_prior + log_likelihood - log_q

        calls = jax.random.split(jax.random.fold_in(key, IMPORTANCE), num_calls)
        return jax.lax.map(some, calls).reshape(-1)

    return jax.vmap(one)(keys, batch)


def simulate(model: Model, params: Params, state, key: Key, num: int):
    """(batch, z) with z ~ p(z) and x ~ p(x | z), so that z is an exact draw of p(z | x).

    Raises:
      ValueError: see `posterior.check`; or the likelihood draws noise of its own, given which z is not exact.
    """
    latent = check(model, params, state)
    key_z, key_x, key_noise = jax.random.split(key, 3)
    z = jax.jit(latent.generate, static_argnums=3)(params, state, key_z, num)
    batch = {"x": jax.jit(latent.observe)(params, state, key_x, z)}
    if is_noisy(model, params, state, key_noise, batch):
        raise ValueError(NEEDS_EXACT)
    return batch, z


class Estimate(NamedTuple):
    """A mean over examples, nats an example."""

    value: float
    standard_error: float  # of the examples, as draws of the data
    monte_carlo_error: float  # of the chains or draws, had one other examples never; without the bias of logarithms


def of_chains(log_weights: Float[np.ndarray, "B C"]) -> Float[np.ndarray, "B 2"]:
    """Each example's log of the mean weight, and its standard error over the chains."""
    return np.array([log_normalizer(row) for row in log_weights.astype(np.float64)])


def from_above(reverse: Float[np.ndarray, "B C"]) -> Float[np.ndarray, "B 2"]:
    """Each example's upper bound -log mean(1 / w), and its standard error: too small, as all walks start at one z."""
    return of_chains(-reverse) * np.array([-1.0, 1.0])


def of_draws(log_weights: Float[np.ndarray, "B K"]) -> Float[np.ndarray, "B 2"]:
    """Each example's ELBO, the mean of its log-weights, with its standard error."""
    rows = log_weights.astype(np.float64)
    return np.stack([rows.mean(1), rows.std(1, ddof=1) / math.sqrt(rows.shape[1])], 1)


def average(per_example: Float[np.ndarray, "B 2"]) -> Estimate:
    """Over examples."""
    values, errors = per_example.T
    num = len(values)
    error = values.std(ddof=1) / math.sqrt(num) if num > 1 else math.nan
    return Estimate(float(values.mean()), float(error), float(np.sqrt((errors**2).sum()) / num))


def gap(one: Float[np.ndarray, "B 2"], other: Float[np.ndarray, "B 2"]) -> Estimate:
    """Mean of one minus the other on the same examples, which share what is hard about them."""
    return average(np.stack([one[:, 0] - other[:, 0], np.hypot(one[:, 1], other[:, 1])], 1))


def effective_samples(log_weights: Float[np.ndarray, "B C"]) -> Float[np.ndarray, " B"]:
    """Of each example's weights, between 1 and their number.

    Below a few of them the errors of `of_chains` say little: however bad the weights, none is above 1 nat.
    """
    return np.array([effective_sample_size(row) for row in log_weights.astype(np.float64)])
