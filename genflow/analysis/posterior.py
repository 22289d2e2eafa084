"""The posterior p(z | x) of a trained decoder as a density of a vector, and draws of it by Hamiltonian Monte Carlo.

log p(x, z) = log p(z) + log p(x | z) is p(z | x) but for its normalizer p(x), and Markov chains need no more. They take
one example at a time: all levels of its latents are one vector v.

A likelihood that draws noise itself (the dequantization of a Gaussian decoder of integers) is given the same noise,
that of the example's key, in every evaluation. What is inferred is then that of the dequantized example.
"""

import functools
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.base import get_filter_adapt_info_fn
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from genflow.core import Key, Latent, Model, Params
from genflow.hosts import to_host

DRAWS_PER_CALL = 50  # of q, in memory at once
NOISE, PRIOR, CHAINS, GUIDE = range(4)  # streams of an example's key


class Joint(NamedTuple):
    """p(z, x) of a model whose parameters are given; an example is a batch of one without its first axis."""

    latent: Latent
    params: Params
    state: PyTree

    def shapes(self) -> PyTree:
        """Of one draw of z, with a first axis of one."""
        return jax.eval_shape(lambda p, s: self.latent.generate(p, s, jax.random.key(0), 1), self.params, self.state)

    def vectors(self, z: PyTree) -> Float[Array, "N D"]:
        """Latents [N, ...] as vectors."""
        return jax.vmap(lambda one: ravel_pytree(one)[0])(z)

    def prior(self, key: Key, num: int) -> Float[Array, "num D"]:
        """Draws of p(z)."""
        return self.vectors(self.latent.generate(self.params, self.state, key, num))

    def posterior(self, key: Key, example, num: int) -> tuple[Float[Array, "num D"], Float[Array, " num"]]:
        """Draws of q(z | x), and log q of each."""
        many = jax.tree.map(lambda a: jnp.broadcast_to(a, (num, *a.shape)), example)
        drawn = self.latent.infer(self.params, self.state, key, many)
        return self.vectors(drawn.z), drawn.log_posterior.sum(0)

    def terms(self, key: Key, example, v: Float[Array, " D"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """log p(z) and log p(x | z), nats; the key is the example's."""
        one = jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), self.shapes())
        z, batch = jax.tree.map(lambda a: a[None], (ravel_pytree(one)[1](v), example))
        noise = jax.random.fold_in(key, NOISE)
        log_prior, log_likelihood = self.latent.joint(self.params, self.state, noise, z, batch)
        return log_prior.sum(), log_likelihood[0]


def check(model: Model, params: Params, state) -> Latent:
    """The latents of a model on which Markov chains can walk.

    Raises:
      ValueError: it has none, or discrete ones.
    """
    if model.latent is None:
        raise ValueError("needs a latent variable model, such as vae: this one has no p(x | z) and p(z)")
    shapes = Joint(model.latent, params, state).shapes()
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(shapes)):
        raise ValueError("needs continuous latents: Hamiltonian Monte Carlo follows gradients in z")
    return model.latent


def example_keys(key: Key, num: int, start: int = 0) -> Key:
    """A key for each example, a function of its position alone."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(start, start + num))


@functools.partial(jax.jit, static_argnums=0)
def _is_noisy(latent, params, state, key, batch):
    z = latent.generate(params, state, key, batch["x"].shape[0])
    one, other = (latent.joint(params, state, k, z, batch)[1] for k in jax.random.split(key))
    return (one != other).any()


def is_noisy(model: Model, params: Params, state, key: Key, batch) -> bool:
    """Whether the likelihood draws noise of its own, so that it depends on its key."""
    return bool(_is_noisy(model.latent, params, state, key, batch))


class Chains(NamedTuple):
    """Draws of p(z | x) for each example, and what they say of themselves."""

    draws: Float[np.ndarray, "B C N D"]
    acceptance: Float[np.ndarray, " B"]
    divergences: np.ndarray  # [B], transitions whose energy error exploded: a region that the chains cannot enter
    rhat: Float[np.ndarray, "B D"]
    effective_samples: Float[np.ndarray, "B D"]


def sample_posterior(
    model: Model,
    params: Params,
    state,
    keys: Key,
    batch,
    num_chains: int = 4,
    num_warmup: int = 500,
    num_samples: int = 500,
) -> Chains:
    """The No-U-Turn sampler on p(z | x), from draws of the prior; step size and diagonal metric adapted per chain.

    Args:
      keys: of the examples, see `example_keys`.

    Raises:
      ValueError: see `check`.

    Reference: Hoffman and Gelman (2014), The No-U-Turn sampler, arXiv:1111.4246; Vehtari et al. (2021),
      Rank-normalization, folding, and localization: an improved R-hat, arXiv:1903.08008.
    """
    latent, sizes = check(model, params, state), (num_chains, num_warmup, num_samples)
    return Chains(*map(to_host, _chains(latent, sizes, params, state, keys, batch)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _chains(latent, sizes, params, state, keys, batch):
    joint, (num_chains, num_warmup, num_samples) = Joint(latent, params, state), sizes

    def one(key, example):
        def log_density(v):
            return sum(joint.terms(key, example, v))

        starts = joint.prior(jax.random.fold_in(key, PRIOR), num_chains)
        walks = jax.random.split(jax.random.fold_in(key, CHAINS), num_chains)
        draws, acceptance, divergent = jax.vmap(functools.partial(_nuts, log_density, num_warmup, num_samples))(
            walks, starts
        )
        diagnostics = blackjax.diagnostics.rhat(draws), blackjax.diagnostics.effective_sample_size(draws)
        return draws, acceptance.mean(), divergent.sum(), *diagnostics

    return jax.vmap(one)(keys, batch)


def _nuts(log_density, num_warmup, num_samples, key, start):
    key_warmup, key_walk = jax.random.split(key)
    warmup = blackjax.window_adaptation(blackjax.nuts, log_density, adaptation_info_fn=get_filter_adapt_info_fn())
    (last, parameters), _ = warmup.run(key_warmup, start, num_warmup)
    kernel = blackjax.nuts(log_density, **parameters)

    def step(state, key):
        state, info = kernel.step(key, state)
        return state, (state.position, info.acceptance_rate, info.is_divergent)

    return jax.lax.scan(step, last, jax.random.split(key_walk, num_samples))[1]


class Comparison(NamedTuple):
    """p(z | x) by its draws beside q(z | x) by its own, for each example."""

    mean: Float[np.ndarray, "B D"]  # of p(z | x)
    variance: Float[np.ndarray, "B D"]
    guide_mean: Float[np.ndarray, "B D"]  # of q(z | x)
    guide_variance: Float[np.ndarray, "B D"]

    def shift(self) -> Float[np.ndarray, "B D"]:
        """Mean of q minus that of p(z | x), in standard deviations of the latter."""
        return (self.guide_mean - self.mean) / np.sqrt(self.variance)

    def spread(self) -> Float[np.ndarray, "B D"]:
        """Standard deviations of q over those of p(z | x)."""
        return np.sqrt(self.guide_variance / self.variance)


def compare(model: Model, params: Params, state, keys: Key, batch, chains: Chains, num: int = 2000) -> Comparison:
    """Means and variances of both posteriors.

    Args:
      num: draws of q, which need not be Gaussian where there are several levels; DRAWS_PER_CALL of them are in memory,
        and their number is rounded up to a multiple of that.
    """
    draws = chains.draws.reshape(len(chains.draws), -1, chains.draws.shape[-1]).astype(np.float64)
    guide = map(to_host, _guide(model.latent, -(-num // DRAWS_PER_CALL), params, state, keys, batch))
    return Comparison(draws.mean(1), draws.var(1, ddof=1), *guide)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _guide(latent, num_calls, params, state, keys, batch):
    """Means and variances of q, from those of equal chunks of its draws."""
    joint, num = Joint(latent, params, state), num_calls * DRAWS_PER_CALL

    def one(key, example):
        def some(key_draws):
            v = joint.posterior(key_draws, example, DRAWS_PER_CALL)[0]
            return v.mean(0), v.var(0)

        calls = jax.random.split(jax.random.fold_in(key, GUIDE), num_calls)
        means, variances = jax.lax.map(some, calls)
        return means.mean(0), (variances.mean(0) + means.var(0)) * num / (num - 1)

    return jax.vmap(one)(keys, batch)
