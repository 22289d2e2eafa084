"""PixelRNN: images one channel of one pixel at a time, by two-dimensional LSTMs."""

from genflow.core import Model, Spec
from genflow.models.autoregressive import autoregressive, softmax_output
from genflow.networks import pixelrnn as network


def pixelrnn(spec: Spec, layer: str = "row", width: int = 16, layers: int = 7, conditional: bool = False) -> Model:
    """Each channel of each pixel given all before it in raster order, by a softmax (Bernoulli for two bins).

    Args:
      layer: 'row' (Row LSTM, which sees a triangle above a pixel) or 'diagonal' (Diagonal BiLSTM, which sees all but
        the last pixel of the row above, unless the first layer's 7x7 kernel reaches it).
      width: h, units of an LSTM.

    Raises:
      ValueError: no images, an unknown layer, or too small a width.

    Reference: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759.
    """
    if len(spec.shape) != 3:
        raise ValueError(f"models images; {spec.name} has events of shape {spec.shape}")
    if layer not in ("row", "diagonal"):
        raise ValueError(f"layer={layer!r}: expected one of row, diagonal")
    if width < spec.shape[-1] or layers < 1:
        raise ValueError(
            f"width={width} must be at least the number of channels, {spec.shape[-1]}, and layers={layers} above zero"
        )
    output = softmax_output(spec)
    causal = network(spec.shape, spec.bins or 2, layer, width, layers)(output.num_params)
    return autoregressive(spec, causal, output, conditional=conditional)
