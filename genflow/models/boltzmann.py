"""Boltzmann generators: flows fitted to an energy, to examples, or to both."""

import jax
import jax.numpy as jnp

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.distributions import standard_normal_log_prob, standard_normal_sample
from genflow.models.flow import flow
from genflow.networks import mlp
from genflow.rows import cut_rows
from genflow.targets import log_effective_sample_size
from genflow.targets import target as find_target

BOX = 5.0  # of the splines, in standard deviations of what enters them
TRANSFORMS = {"affine": bj.affine(bj.tanh_scale()), "spline": bj.rational_quadratic_spline(8, BOX)}


def boltzmann(
    spec: Spec,
    target: str,
    depth: int = 8,
    widths: tuple[int, ...] = (64, 64),
    forward_weight: float = 1.0,
    reverse_weight: float = 1.0,
    coupling: str = "affine",
    energy_cap: float = 1e4,
) -> Model:
    """Flow q of couplings, loss = forward_weight E_data[-log q(x)] + reverse_weight E_q[log q(x) - log p(x)].

    The first term is maximum likelihood, forward KL up to the entropy of the data; the second is reverse KL up to
    the log-normalizer of the unnormalized density p. Where a weight is 0 its term is only a metric.

    Args:
      target: a name of `genflow.targets.TARGETS`.
      depth: pairs of couplings, so that every coordinate is changed once in each.
      coupling: 'affine' or 'spline'.
      energy_cap: nats; where -log p(x) is above it, training uses cap + log(1 + excess), lest few samples rule the
        gradient.

    Reference: Noé et al. (2019), Boltzmann generators, arXiv:1812.01729, J_ML and J_KL.
    """
    density = find_target(target)
    _check(spec, density, depth, widths, forward_weight, reverse_weight)
    if coupling not in TRANSFORMS:
        raise ValueError(f"coupling={coupling!r}: expected one of {', '.join(TRANSFORMS)}")
    bijector = _pairs(depth, widths, TRANSFORMS[coupling])
    base = flow(spec, bijector)

    def init(key, batch):
        key_example, key_flow = jax.random.split(key)
        x = batch["x"] if forward_weight else jax.random.normal(key_example, batch["x"].shape, batch["x"].dtype)
        return base.init(key_flow, {"x": x})

    def sample_log_prob(params, state, key, num):
        z = cut_rows(standard_normal_sample(key, jax.ShapeDtypeStruct((num, spec.dims), jnp.float32)))
        x, log_det = bijector.inverse(params["model"]["flow"], z)
        return x, standard_normal_log_prob(z) - log_det

    def loss(params, state, key, batch):
        nll = -base.log_prob(params, state, None, batch).mean()
        x, log_q = sample_log_prob(params, state, key, len(batch["x"]))
        log_p = density.log_density(x)
        free_energy = (log_q + _tamed(-log_p, energy_cap)).mean()
        weighted = ((forward_weight, nll), (reverse_weight, free_energy))
        total = sum(weight * term for weight, term in weighted if weight)
        ess = jnp.exp(log_effective_sample_size(log_p - log_q)) / len(log_q)
        return total, (state, {"nll": nll, "free_energy": free_energy, "relative_ess": ess})

    return base._replace(init=init, losses={"model": loss}, sample_log_prob=sample_log_prob, target=density)


def _pairs(depth, widths, transform):
    """Each pair changes one half of x given the other, then the other way round."""
    network = mlp(widths, zero_last=True)
    pair = bj.chain(
        actnorm=bj.actnorm(),
        second=bj.coupling(transform, network, bj.halves()),
        first=bj.coupling(transform, network, bj.halves(swap=True)),
    )
    return bj.chain(pairs=bj.repeat(pair, depth), prior=bj.channel_affine())


def _tamed(energy, cap):
    return jnp.minimum(energy, cap) + jnp.log1p(jnp.maximum(energy - cap, 0.0))


def _check(spec, density, depth, widths, forward_weight, reverse_weight):
    if spec.shape != (density.dims,) or spec.dims < 2:
        raise ValueError(f"target={density.name!r} has {density.dims} dimensions, {spec.name} has shape {spec.shape}")
    kind, _, drawn = spec.name.partition(":")
    if kind in ("target", "trajectories") and drawn != density.name:
        raise ValueError(f"target={density.name!r}, but the data are {spec.name}; set both")
    if min((depth, *widths)) < 1:
        raise ValueError(f"depth={depth} and widths={widths} must be above zero")
    if min(forward_weight, reverse_weight) < 0 or forward_weight + reverse_weight == 0:
        raise ValueError(
            f"forward_weight={forward_weight} and reverse_weight={reverse_weight} must not be negative, one above zero"
        )
