"""Densities on the line and on the plane that can be sampled and evaluated exactly: their entropy is known."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genflow.core import Spec
from genflow.data.dataset import SPLIT_SEED, in_memory
from genflow.data.embedded import Source

HALF_WIDTH = 5.0  # of the interval or square that holds all the mass of each density to 1e-7
DEFAULT_NUM = 100_000
NUM_EVALUATION = 10_000

Points = Float[np.ndarray, "N d"]


class Density(NamedTuple):
    """A distribution: sample(rng, num) -> [num, dims] and log_prob(x) -> [N] nats, both float64."""

    sample: Callable[[np.random.Generator, int], Points]
    log_prob: Callable[[Points], Float[np.ndarray, " N"]]
    dims: int = 2


def mixture(centers: Points, weights: Float[np.ndarray, " K"], scale: float) -> Density:
    """p(x) = sum_k weights[k] N(x; centers[k], scale^2 I)."""

    def sample(rng, num):
        chosen = rng.choice(len(centers), size=num, p=weights)
        return centers[chosen] + scale * rng.standard_normal((num, centers.shape[1]))

    return Density(sample, lambda x: _log_mixture(x, centers, weights, scale), centers.shape[1])


def two_gaussians() -> Density:
    """Two Gaussians on the line, one of them more likely."""
    return mixture(np.array([[-2.0], [1.0]]), np.array([0.35, 0.65]), scale=0.5)


def thick_curves(arms: list[Callable], power: int, scale: float, num_nodes: int) -> Density:
    """Points arm(s) of equally likely curves, s = u^(1/power) for uniform u, plus Gaussian noise of width `scale`.

    p(x) = mean over arms of the integral of N(x; arm(s), scale^2 I) power s^(power - 1) ds over [0, 1], by
    Gauss-Legendre quadrature: exact to rounding where the nodes lie closer than `scale`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    s = (nodes + 1) / 2
    centers = np.concatenate([arm(s) for arm in arms])
    mass = np.tile(weights / 2 * power * s ** (power - 1) / len(arms), len(arms))

    def sample(rng, num):
        s = rng.random(num) ** (1 / power)
        which = rng.integers(len(arms), size=num)
        points = np.stack([arm(s) for arm in arms])[which, np.arange(num)]
        return points + scale * rng.standard_normal((num, 2))

    return Density(sample, lambda x: _log_mixture(x, centers, mass, scale))


def moons() -> Density:
    """Two interleaved half circles."""

    def upper(s):
        return 2 * np.stack([np.cos(np.pi * s) - 0.5, np.sin(np.pi * s) - 0.25], axis=-1)

    return thick_curves([upper, lambda s: -upper(s)], power=1, scale=0.2, num_nodes=128)


def spirals() -> Density:
    """Two interleaved spirals of one and a half turns."""

    def arm(s):
        angle = 3 * np.pi * s[:, None]
        return 4 * s[:, None] * np.concatenate([-np.cos(angle), np.sin(angle)], axis=1)

    return thick_curves([arm, lambda s: -arm(s)], power=2, scale=0.1, num_nodes=300)


def eight_gaussians() -> Density:
    """Eight Gaussians on a circle."""
    angle = np.arange(8) * np.pi / 4
    return mixture(3 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(8, 1 / 8), scale=0.3)


def rings(radii: tuple[float, ...] = (1.0, 2.0, 3.0), scale: float = 0.1) -> Density:
    """Concentric rings, equally likely: p(x) = mean_k N(|x|; radii[k], scale^2) / (2 pi |x|)."""

    def sample(rng, num):
        radius = rng.choice(radii, size=num) + scale * rng.standard_normal(num)
        angle = rng.uniform(0, 2 * np.pi, num)
        return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def log_prob(x):
        r = np.maximum(np.linalg.norm(x, axis=1), 1e-9)
        terms = -0.5 * ((r[:, None] - radii) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi) * len(radii))
        return np.logaddexp.reduce(terms, axis=1) - np.log(2 * np.pi * r)

    return Density(sample, log_prob)


def checkerboard() -> Density:
    """Uniform on every second cell, of side 2, of the square [-4, 4]^2: entropy log 32."""

    def sample(rng, num):
        row, half = rng.integers(4, size=num), rng.integers(2, size=num)
        corner = np.stack([2 * half + row % 2, row], axis=1)
        return 2 * (corner + rng.random((num, 2))) - 4

    def log_prob(x):
        cell = np.floor(x / 2)
        inside = (np.abs(x) < 4).all(1) & (cell.sum(1) % 2 == 0)
        return np.where(inside, -math.log(32), -np.inf)

    return Density(sample, log_prob)


def pinwheel(num_blades: int = 5, twist: float = 0.6) -> Density:
    """Gaussian blades, each point turned by `twist` radians per unit of its radius.

    Turning by an angle that depends on the radius alone preserves area, so log p needs no Jacobian.
    """
    center, scale = np.array([2.0, 0.0]), np.array([0.6, 0.15])

    def sample(rng, num):
        y = center + scale * rng.standard_normal((num, 2))
        return _turn(y, 2 * np.pi / num_blades * rng.integers(num_blades, size=num) + twist * np.linalg.norm(y, axis=1))

    def log_prob(x):
        back = -twist * np.linalg.norm(x, axis=1)
        blades = [_turn(x, back - 2 * np.pi / num_blades * k) for k in range(num_blades)]
        terms = [-0.5 * (((y - center) / scale) ** 2).sum(1) for y in blades]
        return np.logaddexp.reduce(terms, axis=0) - np.log(2 * np.pi * num_blades * scale.prod())

    return Density(sample, log_prob)


DENSITIES = {d.__name__: d for d in (moons, rings, checkerboard, eight_gaussians, spirals, pinwheel, two_gaussians)}


def quadrature(density: Density, cells: int = 200) -> tuple[float, float]:
    """Returns the total probability and the entropy in nats, by the midpoint rule on a grid of cells^dims points."""
    step = 2 * HALF_WIDTH / cells
    middle = -HALF_WIDTH + step * (np.arange(cells) + 0.5)
    log_p = density.log_prob(np.stack(np.meshgrid(*[middle] * density.dims), axis=-1).reshape(-1, density.dims))
    p, volume = np.exp(log_p), step**density.dims
    return float(p.sum() * volume), float(-(p * np.where(p > 0, log_p, 0)).sum() * volume)


def density(name: str, num: int, seed: int) -> Source:
    """Draws `num` training points, a function of `seed`, and the same evaluation points for every seed."""
    chosen = DENSITIES[name]()
    entropy = quadrature(chosen)[1]
    spec = Spec(name, (chosen.dims,), None, entropy=entropy, source="drawn by genflow", license="Apache-2.0")
    draws = {"train": (num or DEFAULT_NUM, seed), "validation": (NUM_EVALUATION, 0), "test": (NUM_EVALUATION, 0)}
    rngs = [np.random.default_rng([SPLIT_SEED, i, s]) for i, (_, s) in enumerate(draws.values())]
    parts = {part: chosen.sample(rng, n) for (part, (n, _)), rng in zip(draws.items(), rngs, strict=True)}
    return spec, {part: in_memory(x.astype(np.float32)) for part, x in parts.items()}


def _log_mixture(x: Points, centers: Points, weights: Float[np.ndarray, " K"], scale: float, chunk: int = 1024):
    """Evaluates a Gaussian mixture in slices, so that [N, K] never exists at once."""
    normalizer = centers.shape[1] / 2 * np.log(2 * np.pi * scale**2)
    constant = np.log(weights) - normalizer - 0.5 * (centers**2).sum(1) / scale**2
    out = []
    for block in np.split(x, range(chunk, len(x), chunk)):
        terms = block @ (centers.T / scale**2) + constant
        largest = terms.max(1, keepdims=True)
        total = largest[:, 0] + np.log(np.exp(terms - largest).sum(1))
        out.append(total - 0.5 * (block**2).sum(1) / scale**2)
    return np.concatenate(out)


def _turn(x: Points, angle: Float[np.ndarray, " N"]) -> Points:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], axis=1)
