"""PixelCNN and Gated PixelCNN: images value by value, by masked convolutions."""

from genflow.core import Model, Spec
from genflow.models.autoregressive import autoregressive, softmax_output
from genflow.networks import gated_pixelcnn as gated_network
from genflow.networks import pixelcnn as plain_network


def pixelcnn(spec: Spec, width: int = 16, blocks: int = 7, head: int = 32, conditional: bool = False) -> Model:
    """PixelCNN: residual blocks of masked convolutions; each value is given all before it but those in the blind spot.

    Args:
      width: h of the paper, features of a block's convolution; between the blocks there are twice as many.
      head: features of the layer before the output.

    Raises:
      ValueError: data that are no images; widths that the channels do not divide.

    Reference: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759, sections 3.4 and 3.5.
    """
    return _model(plain_network, spec, width, blocks, head, conditional)


def gated_pixelcnn(spec: Spec, width: int = 32, blocks: int = 7, head: int = 64, conditional: bool = False) -> Model:
    """Gated PixelCNN: two stacks of gated convolutions; each value is given all before it in the receptive field.

    Args:
      width: p of the paper, features of either stack; a gate has twice as many arguments.
      head: features of the layer before the output.

    Raises:
      ValueError: data that are no images; widths that the channels do not divide.

    Reference: van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, arXiv:1606.05328.
    """
    return _model(gated_network, spec, width, blocks, head, conditional)


def _model(network, spec, width, blocks, head, conditional):
    if spec.kind != "images":
        raise ValueError(f"masked convolutions are for images; {spec.name} has events of shape {spec.shape}")
    _, columns, channels = spec.shape
    if min(width, blocks, head) < 1:
        raise ValueError(f"width={width}, blocks={blocks} and head={head} must be above zero")
    if width % channels or head % channels:
        raise ValueError(
            f"width={width} and head={head} must be multiples of the {channels} channels, each of which has its group"
        )
    output = softmax_output(spec)
    net = network(columns, channels, spec.bins or 1, width, blocks, head)(output.num_params)
    return autoregressive(spec, net, output, conditional=conditional)
