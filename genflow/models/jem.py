"""Joint energy-based models: a classifier's logits are energies of images and labels together."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Spec
from genflow.models.classifier import check_labels, cross_entropy
from genflow.models.energy_based import (
    CHAINS,
    Chains,
    Density,
    Sampling,
    centered_scale,
    check_chains,
    contrastive,
    energy_based,
    negatives,
)
from genflow.networks.wide_resnet import wide_resnet


def jem(
    spec: Spec,
    depth: int = 28,
    width: int = 10,
    norm: str = "none",
    conditional: bool = True,
    weight: float = 1.0,
    steps: int = 20,
    step_size: float = 1.0,
    noise: float = 0.01,
    max_gradient: float = 0.0,
    buffer: int = 10_000,
    restarts: float = 0.05,
    regularization: float = 0.0,
    input_noise: float = 0.03,
    divergence: float = 1000.0,
    sample_steps: int = 0,
    sample_from_buffer: bool = False,
) -> Model:
    """p(x, y) = exp f(x)[y] / Z with the logits f of a wide residual network, for images in [-1, 1].

    So p(y | x) is the classifier's softmax, and E(x) = -logsumexp f(x). The loss is -log p(y | x) and `weight` times
    the contrastive one of log p(x). Chains draw from p^(2 step_size / noise^2), temperature noise^2 / (2 step_size),
    5e-5 in the paper. There is no log_prob.

    Args:
      depth, width, norm: see `networks.wide_resnet`; the paper has no normalization.
      conditional: samples are those of given labels, p(x | y), instead of p(x); the training is the same.
      weight: of log p(x); 0: a classifier, whose chains are still run.
      steps, step_size, noise: of Langevin dynamics on images in [-1, 1].
      max_gradient: of each pixel's gradient, clipped; 0: no limit.
      buffer: images of old chains that are kept; 0: one for each row of a batch, persistent chains.
      restarts: probability that a chain starts from noise; 1: short-run chains.
      regularization: of the squared energies; the paper has none.
      input_noise: standard deviation, added to the training data in [-1, 1].
      divergence: nats between the energies of data and samples above which the metric `diverged` is 1.
      sample_steps: of a sample's chain; 0: as in training.
      sample_from_buffer: samples go on from old chains, whatever their label, instead of from noise.

    Raises:
      ValueError: data without labels, a network that does not exist, settings that make no chain.

    Reference: Grathwohl et al. (2020), Your classifier is secretly an energy based model and you should treat it like
      one, arXiv:1912.03263, sections 3 and 4.
    """
    chains = Chains(steps, step_size, noise, max_gradient, False, buffer, restarts)
    sampling = Sampling(sample_steps, sample_from_buffer, conditional)
    check_chains(chains, sampling, divergence)
    check_labels(spec)
    scale, density = centered_scale(spec, input_noise), logit_density(wide_resnet(depth, width, norm)(spec.num_classes))

    def loss(params, state, key, batch):
        key_data, key_chains = jax.random.split(key)
        frozen = jax.lax.stop_gradient(params["model"])
        samples, images = negatives(
            chains, scale, lambda y: density.energy(frozen, y), key_chains, state[CHAINS], len(batch["x"])
        )
        logits = density.logits(params["model"], scale.forward(batch["x"], key_data))
        of_data, of_samples = -jax.nn.logsumexp(logits, axis=1), density.energy(params["model"], samples)
        value, metrics = contrastive(of_data, of_samples, regularization, divergence)
        entropy, more = cross_entropy(logits, batch["label"])
        return entropy + weight * value, (state | {CHAINS: images}, metrics | more)

    return energy_based(spec, density, scale, chains, sampling, loss)


def logit_density(network: Network) -> Density:
    """E(x, y) = -f(x)[y] and E(x) = -logsumexp f(x) of a network f."""

    def energy(params, y, label=None):
        logits = network.apply(params, y)
        if label is None:
            return -jax.nn.logsumexp(logits, axis=1)
        return -jnp.take_along_axis(logits, jnp.asarray(label, jnp.int32)[:, None], axis=1)[:, 0]

    def init(key, y, labels=None):
        return network.init(key, y), {}

    return Density(init, lambda params, state: (params, {}), energy, network.apply)
