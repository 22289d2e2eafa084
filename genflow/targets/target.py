"""What a target is, and how its integrals and samples are had without a model: a table on a grid, Metropolis chains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MARGIN = 0.5  # nats by which a density may rise inside a cell of its table before samples are biased


class Target(NamedTuple):
    """A density on R^dims known up to its normalizer: p(x) = exp(log_density(x)) / Z."""

    name: str
    dims: int
    log_density: Callable[..., Array]  # (x [B, dims], xp=jnp) -> [B] unnormalized nats; xp=np for float64
    sample: Callable[[np.random.Generator, int], Float[np.ndarray, "num dims"]]  # float64
    log_normalizer: float | None = None  # log Z, nats, where it is known
    entropy: float | None = None  # nats, where it is known
    starts: Float[np.ndarray, "K dims"] | None = None  # one point in each basin


def tabulated(name: str, log_density: Callable, low: tuple, high: tuple, cells: int, starts=None) -> Target:
    """A target of few dimensions: Z and entropy by the midpoint rule, samples from its table corrected by rejection.

    Args:
      low, high: corners of a box that holds all the mass but 1e-6.
      cells: along each side.
    """
    low, high = np.array(low, np.float64), np.array(high, np.float64)
    width = (high - low) / cells
    sides = np.meshgrid(*[np.arange(cells) + 0.5] * len(low), indexing="ij")
    centers = low + width * np.stack(sides, -1).reshape(-1, len(low))
    log_p = np.concatenate([log_density(c, np) for c in np.array_split(centers, -(-len(centers) // 2**16))])
    log_normalizer = np.logaddexp.reduce(log_p) + np.log(width).sum()
    mass = np.exp(log_p - np.logaddexp.reduce(log_p))
    cumulative = np.cumsum(mass) / mass.sum()

    def sample(rng, num):
        kept = np.empty((0, len(low)))
        while len(kept) < num:
            cell = np.searchsorted(cumulative, rng.random(2 * num))
            x = centers[cell] + width * (rng.random((2 * num, len(low))) - 0.5)
            accept = np.log(rng.random(2 * num)) < log_density(x, np) - log_p[cell] - MARGIN
            kept = np.concatenate([kept, x[accept]])
        return kept[:num]

    entropy = log_normalizer - (mass * log_p).sum()
    return Target(name, len(low), log_density, sample, float(log_normalizer), float(entropy), starts)


def product(name: str, factor: Target, copies: int) -> Target:
    """Independent copies of a target side by side: 2^copies modes where the factor has two."""

    def log_density(x, xp=jnp):
        return factor.log_density(x.reshape(-1, factor.dims), xp).reshape(-1, copies).sum(1)

    def sample(rng, num):
        return factor.sample(rng, num * copies).reshape(num, copies * factor.dims)

    numbers = (copies * factor.log_normalizer, copies * factor.entropy)
    return Target(name, copies * factor.dims, log_density, sample, *numbers)


def metropolis(
    log_density: Callable,
    rng: np.random.Generator,
    x: Float[np.ndarray, "chains dims"],
    num_steps: int,
    steps: tuple[float, float],
) -> Float[np.ndarray, "num_steps chains dims"]:
    """Random-walk Metropolis chains side by side; the width of each move is log-uniform between two `steps`."""
    log_p, path = log_density(x, np), np.empty((num_steps, *x.shape))
    for i in range(num_steps):
        width = np.exp(rng.uniform(*np.log(steps), (len(x), 1)))
        moved = x + width * rng.standard_normal(x.shape)
        new_log_p = log_density(moved, np)
        accept = np.log(rng.random(len(x))) < new_log_p - log_p
        x, log_p = np.where(accept[:, None], moved, x), np.where(accept, new_log_p, log_p)
        path[i] = x
    return path


def log_effective_sample_size(log_weights: Float[Array, " N"]) -> Float[Array, ""]:
    """Log of (sum w)^2 / sum w^2, of weights given by their logarithms.

    Reference: Kong et al. (1994), Sequential imputations and Bayesian missing data problems, JASA 89.
    """
    total = jax.scipy.special.logsumexp
    return 2 * total(log_weights) - total(2 * log_weights)
