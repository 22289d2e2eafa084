"""Implicit generation with energy-based models: a residual network is the energy, Langevin dynamics the generator."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Spec
from genflow.models import spectral
from genflow.models.energy_based import (
    CHAINS,
    Chains,
    Density,
    Sampling,
    check_chains,
    contrastive,
    energy_based,
    negatives,
    unit_scale,
)
from genflow.networks import activation_by_name
from genflow.networks.energy import energy_resnet


def igebm(
    spec: Spec,
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2),
    blocks: int = 2,
    activation: str = "leaky_relu",
    spectral_normalization: bool = True,
    conditional: bool = False,
    steps: int = 60,
    step_size: float = 10.0,
    noise: float = 0.005,
    max_gradient: float = 0.01,
    buffer: int = 10_000,
    restarts: float = 0.05,
    regularization: float = 1.0,
    input_noise: float = 0.0,
    divergence: float = 100.0,
    sample_steps: int = 0,
    sample_from_buffer: bool = False,
) -> Model:
    """Images in [0, 1]; p(x) = exp(-E(x)) / Z in name: step and noise of the chains are chosen apart.

    By their ratio the chains draw from p^(2 step_size / noise^2), temperature noise^2 / (2 step_size) = 1.25e-6, as
    far as gradients are below max_gradient; in effect they descend. There is no log_prob.

    Args:
      width, multipliers, blocks: see `networks.energy`.
      spectral_normalization: divide every kernel by its largest singular value.
      conditional: an energy for each label; p(x) is then that of labels that are equally likely.
      steps, step_size, noise: of Langevin dynamics on images in [0, 1].
      max_gradient: of each pixel's gradient, clipped; 0: no limit.
      buffer: images of old chains that are kept; 0: one for each row of a batch, persistent chains.
      restarts: probability that a chain starts from noise; 1: short-run chains.
      regularization: of the squared energies, so that they stay near zero.
      input_noise: standard deviation, added to the dequantized data.
      divergence: nats between the energies of data and samples above which the metric `diverged` is 1.
      sample_steps: of a sample's chain; 0: as in training.
      sample_from_buffer: samples go on from old chains instead of from noise.

    Raises:
      ValueError: sizes or settings that make no chain; conditional without labels.

    Reference: Du and Mordatch (2019), Implicit generation and modeling with energy-based models, arXiv:1903.08689.
    """
    chains = Chains(steps, step_size, noise, max_gradient, True, buffer, restarts)
    sampling = Sampling(sample_steps, sample_from_buffer, conditional)
    check_chains(chains, sampling, divergence)
    if conditional and not spec.num_classes:
        raise ValueError(f"conditional=True, but {spec.name} has no labels")
    scale = unit_scale(spec, input_noise)
    if any(side % 2 ** len(multipliers) for side in spec.shape[:2]):
        sides = f"{spec.shape[0]}x{spec.shape[1]}"
        raise ValueError(f"multipliers={multipliers}: {len(multipliers)} stages halve images of {sides} too often")
    network = energy_resnet(width, multipliers, blocks, activation_by_name(activation))
    density = residual_density(network, spectral_normalization, spec.num_classes if conditional else 0)

    def loss(params, state, key, batch):
        key_data, key_chains = jax.random.split(key)
        label = batch["label"] if conditional else None
        prepared, kept = density.prepare(params["model"], state)
        frozen = jax.lax.stop_gradient(prepared)
        samples, images = negatives(
            chains, scale, lambda y: density.energy(frozen, y, label), key_chains, state[CHAINS], len(batch["x"])
        )
        of_data = density.energy(prepared, scale.forward(batch["x"], key_data), label)
        of_samples = density.energy(prepared, samples, label)
        value, metrics = contrastive(of_data, of_samples, regularization, divergence)
        return value, (state | kept | {CHAINS: images}, metrics)

    return energy_based(spec, density, scale, chains, sampling, loss)


def residual_density(network: Network, normalized: bool, num_classes: int) -> Density:
    """The density of a network that says an energy, with spectral normalization or without, told labels or not."""
    normalization = spectral.spectral_normalization()

    def init(key, y, labels=None):
        params = network.init(key, y, None if labels is None else jax.nn.one_hot(labels, num_classes))
        return params, {"spectral": normalization.init(jax.random.fold_in(key, 1), params)} if normalized else {}

    def prepare(params, state):
        if not normalized:
            return params, {}
        params, vectors = normalization.apply(params, state["spectral"])
        return params, {"spectral": vectors}

    def logits(params, y):
        every = jnp.eye(num_classes, dtype=y.dtype)
        given = jax.vmap(lambda c: network.apply(params, y, jnp.broadcast_to(c, (len(y), num_classes))))(every)
        return -given.T

    def energy(params, y, label=None):
        if not num_classes:
            return network.apply(params, y)
        if label is None:
            return -jax.nn.logsumexp(logits(params, y), axis=1)
        return network.apply(params, y, jax.nn.one_hot(label, num_classes, dtype=y.dtype))

    return Density(init, prepare, energy, logits if num_classes else None)
