"""The Markov perceptron of the lecture: the smallest autoregressive model."""

from genflow.core import Model, Spec
from genflow.models.autoregressive import autoregressive, softmax_output
from genflow.networks import markov_mlp


def markov(spec: Spec, order: int = 16, widths: tuple[int, ...] = (128,), conditional: bool = False) -> Model:
    """Each value given the `order` values before it in raster order, by one perceptron with a softmax.

    Raises:
      ValueError: `order` or a width below one.
    """
    if min((order, *widths)) < 1:
        raise ValueError(f"order={order} and widths={widths} must be above zero")
    output = softmax_output(spec)
    network = markov_mlp(order, widths, spec.bins or 1)(output.num_params)
    return autoregressive(spec, network, output, conditional=conditional)
