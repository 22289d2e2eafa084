"""PixelCNN++: all channels of a pixel at once, from a mixture of discretized logistics."""

from genflow.core import Model, Spec
from genflow.distributions import logistic_mixture
from genflow.models.autoregressive import autoregressive
from genflow.networks import pixelcnnpp as network


def pixelcnnpp(
    spec: Spec,
    width: int = 160,
    stages: int = 3,
    blocks: int = 5,
    components: int = 10,
    dropout: float = 0.5,
    conditional: bool = False,
) -> Model:
    """P(x) = prod over pixels of a mixture of `components` logistics, by two streams at `stages` resolutions.

    Args:
      blocks: gated residual blocks a resolution, on the way down; one more on the way up, but at the lowest.

    Raises:
      ValueError: data other than images of more than two values; sides that cannot be halved stages - 1 times; sizes
        below one; dropout outside [0, 1).

    Reference: Salimans et al. (2017), PixelCNN++, arXiv:1701.05517.
    """
    if spec.kind != "images" or not spec.bins:
        raise ValueError(f"models images of integers; {spec.name} has events of shape {spec.shape}")
    if spec.bins == 2:
        raise ValueError("a logistic cannot be fitted to two values; take gated_pixelcnn, or data.binarize='none'")
    if min(width, stages, blocks, components) < 1:
        raise ValueError(f"{width=}, {stages=}, {blocks=} and {components=} must be above zero")
    if not 0 <= dropout < 1:
        raise ValueError(f"{dropout=} must be at least 0 and below 1")
    height, columns, channels = spec.shape
    factor = 2 ** (stages - 1)
    if height % factor or columns % factor:
        raise ValueError(
            f"stages={stages} halves the sides of an image {stages - 1} times, but {height} or {columns} is no "
            f"multiple of {factor}; set stages lower, or data.image_size to a multiple"
        )
    output = logistic_mixture(spec.bins, components, channels)
    causal = network(width, stages, blocks, spec.bins, columns, dropout)(output.num_params)
    return autoregressive(spec, causal, output, channels, conditional)
