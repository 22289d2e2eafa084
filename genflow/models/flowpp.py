"""Flow++."""

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.dequantize import variational
from genflow.models.flow import flow
from genflow.networks import checkerboard_context, gated_attention


def flowpp(
    spec: Spec,
    width: int = 96,
    blocks: int = 10,
    components: int = 32,
    heads: int = 4,
    dropout: float = 0.2,
    noise_width: int = 96,
    noise_blocks: int = 2,
    alpha: float = 0.05,
    memory: str = "remat",
    conditional: bool = False,
) -> Model:
    """Mixture-of-logistics couplings with self-attention, on data that a conditional flow dequantizes.

    Four checkerboard couplings, space to depth, two channel couplings, three checkerboard couplings.

    Args:
      components: logistics in each mixture distribution function.
      noise_width, noise_blocks: of the dequantization flow's four couplings.
      alpha: pixels are squeezed into [alpha, 1 - alpha] before the logit.
      dropout: probability in the main flow's networks, in the loss; log_prob has none.

    Reference: Ho et al. (2019), Flow++, arXiv:1902.00275, sections 3 and 4; official code, run_cifar.py.
    """
    if len(spec.shape) != 3 or spec.bins is None or spec.shape[0] % 2 or spec.shape[1] % 4:
        raise ValueError(f"models discrete images with sides divisible by 2 and 4; {spec.name} has shape {spec.shape}")
    if min(width, blocks, components, heads, noise_width, noise_blocks) < 1 or width % heads or noise_width % heads:
        raise ValueError(f"heads={heads} must divide width={width} and noise_width={noise_width}; all above zero")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be a probability below one")

    def step(network, split):
        coupling = bj.coupling(bj.mixture_cdf(components), network, split)
        return bj.chain(actnorm=bj.actnorm(), conv1x1=bj.conv1x1(), coupling=coupling)

    def steps(num, split, mirror):
        return bj.repeat(bj.chain(step=step(network, split), mirror=mirror), num, memory)

    network = gated_attention(width, blocks, heads, dropout)
    noise_network = gated_attention(noise_width, noise_blocks, heads)
    bijector = bj.chain(
        logit=bj.logit(alpha),
        # columns mirrored: the two colors of the board change places
        checkerboard=steps(4, bj.checkerboard(), bj.flip(axis=2)),
        squeeze=bj.squeeze(),
        channels=steps(2, bj.halves(), bj.flip()),
        last=steps(3, bj.checkerboard(), bj.flip(axis=2)),
    )
    # not mirrored, the context lies beside the noise
    noise_pair = bj.chain(
        even=step(noise_network, bj.checkerboard()), odd=step(noise_network, bj.checkerboard(swap=True))
    )
    noise = bj.repeat(noise_pair, 2, memory)
    dequantizer = variational(spec.bins, noise, checkerboard_context(noise_width))
    return flow(spec, bijector, dequantizer, conditional=conditional)
