"""Generative adversarial networks of perceptrons."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec
from genflow.models.adversarial import Objective, Players, adversarial
from genflow.networks import gan_discriminator, gan_generator


def gan(
    spec: Spec,
    loss: str = "non_saturating",
    gradient_penalty: float = 0.0,
    spectral_normalization: bool = False,
    noise_dims: int = 100,
    prior: str = "uniform",
    widths: tuple[int, ...] = (1200, 1200),
    generator_init: float = 0.05,
    discriminator_widths: tuple[int, ...] = (240, 240),
    pieces: int = 5,
    dropout_input: float = 0.2,
    dropout: float = 0.5,
    discriminator_init: float = 0.005,
    dequantize: bool = False,
    conditional: bool = False,
) -> Model:
    """ReLU layers from noise to data, and a discriminator of maxout units with dropout.

    Integers leave the generator through a sigmoid, whose bias starts at the means of the first batch; continuous data
    through a linear layer. Both players are given the label beside their input, if conditional.

    Args:
      loss, gradient_penalty, spectral_normalization: see `adversarial.Objective`.
      noise_dims, prior: of the noise, 'normal' or 'uniform', in both cases of variance one.
      widths, discriminator_widths: of hidden layers.
      generator_init, discriminator_init: half-width of the uniform weights at the start; 0: normal, sqrt(2 / inputs).
      pieces: of a maxout unit; 1: ReLU.
      dropout_input, dropout: of the discriminator's input, and its hidden layers; fractions that are dropped.

    Raises:
      ValueError: sizes, or choices that do not exist.

    Reference: Goodfellow et al. (2014), Generative adversarial nets, arXiv:1406.2661; conditional, Mirza and Osindero
      (2014), arXiv:1411.1784.
    """
    if min((*widths, *discriminator_widths, pieces)) < 1:
        raise ValueError(f"widths={widths}, {discriminator_widths=}, {pieces=} must be above zero")
    if not (0 <= dropout_input < 1 and 0 <= dropout < 1):
        raise ValueError(f"{dropout_input=} and {dropout=} must be at least 0 and below 1")
    squash = spec.bins is not None
    generator = gan_generator(spec.shape, widths, generator_init, squash)
    discriminator = gan_discriminator(
        discriminator_widths, pieces, dropout_input, dropout, discriminator_init, unit_range=squash
    )
    players = Players(generator, discriminator, noise_dims, prior, _from_means if squash else None)
    objective = Objective(loss, gradient_penalty, spectral_normalization)
    return adversarial(spec, players, objective, dequantize, conditional)


def _from_means(params, x):
    """A bias at which the generator of zero weights says the means of the data; a mean of 0 or 1 is pulled inside."""
    mean = (((x + 1.0) / 2.0).sum(0) + 0.5) / (len(x) + 1.0)
    bias = jax.scipy.special.logit(jnp.clip(mean, 1e-3, 1.0 - 1e-3)).reshape(-1)
    return params | {"output": params["output"] | {"bias": bias}}
