"""A small cluster of particles that attract each other."""

import math

import jax.numpy as jnp
import numpy as np

from genflow.targets.target import Target, metropolis

PARTICLES, DIMS = 3, 2
DEPTH = 2.0  # of the pair potential's well, kT
CORE = 0.8  # below this distance the pair potential goes on as a straight line in r^2
FIRST, SECOND = np.triu_indices(PARTICLES, 1)
CHAINS, BURN_IN, THIN = 500, 1_000, 50


def pair_energy(r2, xp=jnp):
    """4 DEPTH (r^-12 - r^-6), continued below r = CORE with its slope in r^2, so that energies and forces are bounded.

    The continuation begins at 86 kT, a Boltzmann weight below 1e-37; Noé et al. tame the same wall by a logarithm.

    Reference: Noé et al. (2019), Boltzmann generators, arXiv:1812.01729, supplement on extreme energies.
    """
    core = CORE**2
    inverse = 1 / xp.maximum(r2, core) ** 3
    slope = 4 * DEPTH * (-6 * core**-7 + 3 * core**-4)
    return 4 * DEPTH * (inverse**2 - inverse) + slope * xp.minimum(r2 - core, 0)


def log_density(x, xp=jnp):
    """-(sum of pair energies) - |x|^2 / 2 of particles x [B, PARTICLES * DIMS] in a harmonic trap, kT."""
    position = x.reshape(-1, PARTICLES, DIMS)
    r2 = ((position[:, FIRST] - position[:, SECOND]) ** 2).sum(-1)
    return -pair_energy(r2, xp).sum(1) - 0.5 * (x**2).sum(1)


def lennard_jones(name: str) -> Target:
    """Three Lennard-Jones particles on the plane in a harmonic trap: Z by quadrature, samples by Metropolis chains."""

    def sample(rng, num):
        rounds = -(-num // CHAINS)
        start = rng.standard_normal((CHAINS, PARTICLES * DIMS))
        path = metropolis(log_density, rng, start, BURN_IN + THIN * rounds, (0.03, 1.0))
        return path[BURN_IN + THIN - 1 :: THIN].reshape(-1, PARTICLES * DIMS)[:num]

    return Target(name, PARTICLES * DIMS, log_density, sample, *quadrature())


def quadrature(step: float = 0.05, radius: float = 5.5) -> tuple[float, float]:
    """Log Z and entropy, by the midpoint rule in the three coordinates that are left after the symmetries.

    In Jacobi coordinates y0 = (x1 + x2 + x3) / sqrt(3), y1 = (x1 - x2) / sqrt(2), y2 = (x1 + x2 - 2 x3) / sqrt(6)
    the centre y0 is Gaussian, and a rotation brings y1 to the first axis and y2 above it.
    """
    at = step * (np.arange(round(radius / step)) + 0.5)
    y2 = np.stack(np.meshgrid(np.concatenate([-at[::-1], at]), at), -1).reshape(-1, DIMS)
    terms = []
    for r in at:
        y1 = np.array([r, 0.0])
        x = np.stack([y1 / math.sqrt(2), -y1 / math.sqrt(2), [0, 0]])[None] + y2[:, None] * _SHARES[:, None]
        log_p = log_density(x.reshape(-1, PARTICLES * DIMS), np)
        terms.append((np.exp(log_p).sum() * r, (np.exp(log_p) * log_p).sum() * r))
    total, weighted = np.sum(terms, axis=0)
    log_normalizer = math.log(2 * math.pi) + math.log(total * 2 * 2 * math.pi * step**3)
    return log_normalizer, log_normalizer - float(weighted / total) + 1.0  # y0 adds E[|y0|^2 / 2] = 1


_SHARES = np.array([1.0, 1.0, -2.0]) / math.sqrt(6)  # of y2 in each particle
