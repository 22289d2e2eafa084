"""Real NVP, on images and on vectors."""

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.models.flow import flow
from genflow.networks import mlp, resnet


def realnvp(
    spec: Spec,
    scales: int = 2,
    width: int = 64,
    blocks: int = 8,
    alpha: float = 0.05,
    memory: str = "store",
    conditional: bool = False,
) -> Model:
    """Multi-scale flow of affine couplings: checkerboard, space to depth, channels, half factored out; and again.

    ActNorm stands where the paper has batch normalization, and the residual networks use group normalization, so that
    a density does not depend on its batch.

    Args:
      scales: levels; each but the last halves the image's sides.
      width: channels of the residual networks at the first scale, doubled with every squeeze.
      blocks: residual blocks in each network.
      alpha: pixels are squeezed into [alpha, 1 - alpha] before the logit.

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, sections 3.4 to 3.7 and 4.1.
    """
    _check(spec, scales, width, blocks)

    def couplings(num, width, split, mirror):
        network = bj.learned_tanh(resnet(width, blocks, zero_last=False))
        coupling = bj.coupling(bj.affine(lambda log_scale: log_scale), network, split)
        return bj.repeat(bj.chain(coupling=coupling, actnorm=bj.actnorm(), mirror=mirror), num, memory)

    def checkerboards(num, width):
        # columns mirrored: the two colors of the board change places
        return couplings(num, width, bj.checkerboard(masked=True), bj.flip(axis=2))

    def scale(level, channels):
        wide = width * 2**level
        if level == scales - 1:
            return checkerboards(4, wide)
        return bj.chain(
            checkerboard=checkerboards(3, wide),
            squeeze=bj.squeeze(),
            channels=couplings(3, 2 * wide, bj.halves(), bj.flip()),
            # half of the positions of every channel leave, not all positions of half the channels
            order=bj.permutation(tuple(4 * c + p for p in (0, 3, 1, 2) for c in range(channels))),
            next=bj.factor_out(scale(level + 1, 2 * channels)),
        )

    return flow(spec, bj.chain(logit=bj.logit(alpha), flow=scale(0, spec.shape[-1])), conditional=conditional)


def _check(spec, scales, width, blocks):
    if len(spec.shape) != 3 or spec.bins is None:
        raise ValueError(f"models discrete images [height, width, channels]; {spec.name} has shape {spec.shape}")
    if min(scales, width, blocks) < 1:
        raise ValueError(f"scales={scales}, width={width} and blocks={blocks} must be above zero")
    if any(side % 2**scales for side in spec.shape[:2]):
        raise ValueError(f"scales={scales} halves images of {spec.shape[0]}x{spec.shape[1]} too often; use fewer")


def coupling_flow(
    spec: Spec,
    depth: int = 8,
    widths: tuple[int, ...] = (64, 64),
    memory: str = "store",
    conditional: bool = False,
) -> Model:
    """Flow of ActNorm and tanh-bounded affine couplings on vectors, the order of the dimensions reversed in between.

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803.
    """
    if len(spec.shape) != 1 or spec.dims < 2:
        raise ValueError(f"models vectors of two dimensions or more; {spec.name} has shape {spec.shape}")
    if min((depth, *widths)) < 1:
        raise ValueError(f"depth={depth} and widths={widths} must be above zero")
    transform = bj.affine(bj.tanh_scale())
    network = mlp(widths, zero_last=True)
    step = bj.chain(actnorm=bj.actnorm(), coupling=bj.coupling(transform, network), flip=bj.flip())
    bijector = bj.chain(steps=bj.repeat(step, depth, memory), prior=bj.channel_affine())
    return flow(spec, bijector, conditional=conditional)
