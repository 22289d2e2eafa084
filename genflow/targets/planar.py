"""Energies of two dimensions, their normalizers and entropies by quadrature."""

import math

import jax.numpy as jnp
import numpy as np

from genflow.targets.target import Target, product, tabulated

SIDE = 4.0  # the square of the figures of Rezende and Mohamed is [-4, 4]^2
WALL = 0.2  # width of the Gaussian edge of the energies that are improper without one
CENTER, SPREAD = 2.5, 0.6  # of the four Gaussians
DOUBLE_WELL = {"a": 1.0, "b": 6.0, "c": 1.0, "d": 1.0}


def two_moons_energy(x, xp=jnp):
    """U1(x) = ((|x| - 2) / 0.4)^2 / 2 - ln(exp(-((x1 - 2) / 0.6)^2 / 2) + exp(-((x1 + 2) / 0.6)^2 / 2)).

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770, table 1, potential 1.
    """
    radius = xp.sqrt((x**2).sum(1) + 1e-12)  # the gradient at the origin is finite
    sides = xp.logaddexp(-0.5 * ((x[:, 0] - 2) / 0.6) ** 2, -0.5 * ((x[:, 0] + 2) / 0.6) ** 2)
    return 0.5 * ((radius - 2) / 0.4) ** 2 - sides


def wave_energy(x, xp=jnp):
    """U2(x) = ((x2 - w1) / 0.4)^2 / 2, w1 = sin(pi x1 / 2), with a soft wall that makes it proper.

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770, table 1, potential 2; the wall is ours.
    """
    return 0.5 * ((x[:, 1] - _w1(x, xp)) / 0.4) ** 2 + _wall(x, xp)


def parting_wave_energy(x, xp=jnp):
    """U3(x) = -ln(exp(-((x2 - w1) / 0.35)^2 / 2) + exp(-((x2 - w1 + w2) / 0.35)^2 / 2)), with a soft wall.

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770, table 1, potential 3; the wall is ours.
    """
    w2 = 3 * xp.exp(-0.5 * ((x[:, 0] - 1) / 0.6) ** 2)
    return _two_waves(x, (0.35, 0.35), w2, xp)


def forking_wave_energy(x, xp=jnp):
    """U4(x) = -ln(exp(-((x2 - w1) / 0.4)^2 / 2) + exp(-((x2 - w1 + w3) / 0.35)^2 / 2)), with a soft wall.

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770, table 1, potential 4; the wall is ours.
    """
    w3 = 1.5 * (1 + xp.tanh((x[:, 0] - 1) / 0.6))  # 3 sigmoid((x1 - 1) / 0.3)
    return _two_waves(x, (0.4, 0.35), w3, xp)


def _two_waves(x, widths, gap, xp):
    upper = x[:, 1] - _w1(x, xp)
    waves = xp.logaddexp(-0.5 * (upper / widths[0]) ** 2, -0.5 * ((upper + gap) / widths[1]) ** 2)
    return _wall(x, xp) - waves


def _w1(x, xp):
    return xp.sin(math.pi / 2 * x[:, 0])


def _wall(x, xp):
    return 0.5 * (xp.maximum(xp.abs(x[:, 0]) - SIDE, 0) / WALL) ** 2


def four_gaussians_energy(x, xp=jnp):
    """-ln of the density of four equal Gaussians around (+-2.5, +-2.5), each coordinate a mixture of two: Z = 1."""
    pair = xp.logaddexp(-0.5 * ((x - CENTER) / SPREAD) ** 2, -0.5 * ((x + CENTER) / SPREAD) ** 2)
    return -(pair - math.log(2 * SPREAD * math.sqrt(2 * math.pi))).sum(1)


def double_well_energy(x, xp=jnp):
    """u(x) = a x1^4 / 4 - b x1^2 / 2 + c x1 + d x2^2 / 2: two wells at x1 of about -2.5 and 2.4, the left one deeper.

    Reference: Noé et al. (2019), Boltzmann generators, arXiv:1812.01729, the double well of its supplement.
    """
    a, b, c, d = DOUBLE_WELL.values()
    return a * x[:, 0] ** 4 / 4 - b * x[:, 0] ** 2 / 2 + c * x[:, 0] + d * x[:, 1] ** 2 / 2


def _planar(name, energy, low, high, starts=None) -> Target:
    return tabulated(name, lambda x, xp=jnp: -energy(x, xp), low, high, 400, starts)


def two_moons(name: str) -> Target:
    """Two arcs that face each other."""
    return _planar(name, two_moons_energy, (-SIDE, -SIDE), (SIDE, SIDE))


def wave(name: str) -> Target:
    """One period and a half of a sine."""
    return _planar(name, wave_energy, (-SIDE - 1.2, -SIDE), (SIDE + 1.2, SIDE))


def parting_wave(name: str) -> Target:
    """A sine that is two for a while."""
    return _planar(name, parting_wave_energy, (-SIDE - 1.2, -6.5), (SIDE + 1.2, SIDE))


def forking_wave(name: str) -> Target:
    """A sine that splits in two."""
    return _planar(name, forking_wave_energy, (-SIDE - 1.2, -6.5), (SIDE + 1.2, SIDE))


def four_gaussians(name: str) -> Target:
    """Four equal bumps with valleys of nine nats between them, for telling the two directions of KL apart."""
    return _planar(name, four_gaussians_energy, (-6, -6), (6, 6))


def double_well(name: str) -> Target:
    """Two wells behind a barrier of eleven and seven nats."""
    return _planar(name, double_well_energy, (-4.5, -6), (4.5, 6), np.array([[-2.5, 0.0], [2.4, 0.0]]))


def many_well(name: str) -> Target:
    """Three double wells side by side: six dimensions, eight modes of very unequal weight."""
    return product(name, double_well("double_well"), 3)
