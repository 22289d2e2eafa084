"""Deep convolutional generative adversarial networks."""

from genflow.core import Model, Spec
from genflow.models.adversarial import Objective, Players, adversarial
from genflow.networks import dcgan_discriminator, dcgan_generator


def dcgan(
    spec: Spec,
    loss: str = "non_saturating",
    noise_dims: int = 100,
    prior: str = "uniform",
    width: int = 128,
    levels: int = 4,
    dequantize: bool = False,
) -> Model:
    """Images, by transposed convolutions of 5x5 pixels and stride 2; the discriminator is the mirror of that.

    Both have batch normalization, the discriminator's over data and samples apart.

    Args:
      loss: 'minimax', 'non_saturating' or 'hinge'.
      noise_dims, prior: of the noise, 'normal' or 'uniform', in both cases of variance one.
      width: channels of the map next to the image; twice as many at each level further.
      levels: how often the image is halved.
      dequantize: integers get noise of one level before the discriminator sees them.

    Raises:
      ValueError: sizes, data that are no images, or images that cannot be halved so often.

    Reference: Radford et al. (2016), Unsupervised representation learning with deep convolutional generative
      adversarial networks, arXiv:1511.06434.
    """
    check_images(spec, levels, "levels")
    if loss == "wasserstein":
        raise ValueError(
            "loss='wasserstein': takes minimax, non_saturating or hinge; nothing limits the critic's slope"
        )
    if width < 1:
        raise ValueError(f"{width=} must be above zero")
    generator = dcgan_generator(spec.shape, width, levels)
    players = Players(generator, dcgan_discriminator(width, levels), noise_dims, prior)
    return adversarial(spec, players, Objective(loss), dequantize)


def check_images(spec: Spec, halvings: int, name: str) -> None:
    """Refuses data that are no images of integers, or that cannot be halved so often, once at least.

    Raises:
      ValueError: names the argument.
    """
    if spec.kind != "images" or spec.bins is None:
        raise ValueError(f"models images of integers; {spec.name} has shape {spec.shape} and bins {spec.bins}")
    height, width = spec.shape[:2]
    if halvings < 1 or height % 2**halvings or width % 2**halvings:
        raise ValueError(f"{name}={halvings}: {height} and {width} pixels must be multiples of 2^{name}, {name} >= 1")
