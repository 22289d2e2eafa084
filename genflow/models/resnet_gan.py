"""Residual generative adversarial networks, with a critic of limited slope: WGAN-GP and SNGAN."""

from genflow.core import Model, Spec
from genflow.models.adversarial import Objective, Players, adversarial
from genflow.models.dcgan import check_images
from genflow.networks import resnet_discriminator, resnet_generator

POOLINGS = ("sum", "mean")


def resnet_gan(
    spec: Spec,
    loss: str = "hinge",
    gradient_penalty: float = 0.0,
    spectral_normalization: bool = True,
    generator_batch: int = 2,
    noise_dims: int = 128,
    prior: str = "normal",
    width: int = 256,
    discriminator_width: int = 128,
    levels: int = 3,
    downsamplings: int = 2,
    blocks: int = 2,
    pooling: str = "sum",
    batch_norm: bool = True,
    dequantize: bool = True,
    conditional: bool = False,
) -> Model:
    """Images, by residual blocks that double them; the critic's halve them, and pool what remains.

    Conditional: the label scales and shifts the normalized maps of the generator, and is projected on the pooled
    features of the critic.

    Args:
      loss, gradient_penalty, spectral_normalization, generator_batch: see `adversarial.Objective`.
      noise_dims, prior: of the noise, 'normal' or 'uniform', in both cases of variance one.
      width, discriminator_width: channels of all maps.
      levels: doublings of the generator.
      downsamplings, blocks: of the critic: blocks that halve the image, and blocks after them.
      pooling: 'sum' or 'mean', over pixels.
      batch_norm: of the generator.
      dequantize: integers get noise of one level before the critic sees them.

    Raises:
      ValueError: sizes, choices that do not exist, or images that cannot be halved so often.

    Reference: Gulrajani et al. (2017), Improved training of Wasserstein GANs, arXiv:1704.00028; Miyato et al. (2018),
      Spectral normalization for generative adversarial networks, arXiv:1802.05957; the projection, Miyato and Koyama
      (2018), arXiv:1802.05637.
    """
    check_images(spec, levels, "levels")
    check_images(spec, downsamplings, "downsamplings")
    if min(width, discriminator_width) < 1 or blocks < 0:
        raise ValueError(f"{width=}, {discriminator_width=}, {blocks=}: expected 1 or more, of blocks 0 or more")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}")
    if conditional and not batch_norm:
        raise ValueError("conditional=True needs batch_norm=True, which is how the generator is given the label")
    generator = resnet_generator(spec.shape, width, levels, batch_norm)
    discriminator = resnet_discriminator(discriminator_width, downsamplings, blocks, pooling)
    objective = Objective(loss, gradient_penalty, spectral_normalization, generator_batch)
    return adversarial(spec, Players(generator, discriminator, noise_dims, prior), objective, dequantize, conditional)
