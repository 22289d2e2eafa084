"""WaveNet: sound, sample by sample."""

from genflow.core import Model, Spec
from genflow.distributions import categorical, logistic_mixture
from genflow.models.autoregressive import autoregressive
from genflow.networks import wavenet as network


def wavenet(
    spec: Spec,
    width: int = 32,
    skip_width: int = 64,
    cycles: int = 2,
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    kernel: int = 2,
    components: int = 0,
    conditional: bool = False,
) -> Model:
    """log p(x) = sum_t log p(x_t | x_1 .. x_(t-1), c) with p from dilated causal convolutions.

    c is one vector for a whole example (global conditioning). Frames along the time (local conditioning) are taken by
    the network, `networks.wavenet`, but no data set here has them.

    Args:
      cycles: how often the dilations are repeated.
      components: of a mixture of rounded logistics on the codes; 0: a softmax over the codes.

    Raises:
      ValueError: a size below one, a kernel of one tap.

    Reference: van den Oord et al. (2016), WaveNet: A generative model for raw audio, arXiv:1609.03499, equation 1; Oord
    et al. (2018), Parallel WaveNet, arXiv:1711.10433, section 2.1 (the mixture).
    """
    if min((width, skip_width, cycles, kernel - 1, *dilations, len(dilations))) < 1 or components < 0:
        raise ValueError(
            f"width={width}, skip_width={skip_width}, cycles={cycles} and dilations={dilations} must be above zero, "
            f"kernel={kernel} above one, components={components} not negative"
        )
    if len(spec.shape) != 1:
        raise ValueError(f"models sequences; {spec.name} has events of shape {spec.shape}")
    bins = spec.bins or 2
    output = logistic_mixture(bins, components) if components else categorical(bins)
    causal = network(tuple(dilations) * cycles, width, skip_width, bins, kernel)(output.num_params)
    return autoregressive(spec, causal, output, conditional=conditional)
