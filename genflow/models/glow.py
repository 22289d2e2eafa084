"""Glow."""

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.models.flow import flow
from genflow.networks import glow_conv, zero_conv


def glow(
    spec: Spec,
    levels: int = 3,
    depth: int = 32,
    width: int = 512,
    coupling: str = "affine",
    memory: str = "store",
    gaussianize: bool = False,
    conditional: bool = False,
) -> Model:
    """Multi-scale flow of ActNorm, invertible 1x1 convolution and coupling, `depth` times on each of `levels` levels.

    Args:
      width: hidden channels of the coupling networks.
      coupling: 'affine' or 'additive'.
      memory: see `bijectors.repeat`.
      gaussianize: give every pixel its own learned histogram first (`bijectors.histogram_gaussianization`); for small
        data sets with few gray levels.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, figure 2 and table 1.
    """
    _check(spec, levels, depth, width, gaussianize)
    transforms = {"affine": bj.affine(bj.sigmoid_scale), "additive": bj.additive()}
    if coupling not in transforms:
        raise ValueError(f"coupling={coupling!r}: expected one of {', '.join(transforms)}")
    step = bj.chain(
        actnorm=bj.actnorm(), conv1x1=bj.conv1x1(), coupling=bj.coupling(transforms[coupling], glow_conv(width))
    )

    def level(rest):
        squeezed = bj.chain(squeeze=bj.squeeze(), steps=bj.repeat(step, depth, memory))
        if rest is None:
            return bj.chain(level=squeezed, prior=bj.channel_affine())
        return bj.chain(level=squeezed, prior=bj.split_prior(zero_conv()), next=bj.factor_out(rest))

    bijector = None
    for _ in range(levels):
        bijector = level(bijector)
    if gaussianize:
        bijector = bj.chain(marginals=bj.histogram_gaussianization(spec.bins), glow=bijector)
    return flow(spec, bijector, conditional=conditional)


def _check(spec, levels, depth, width, gaussianize):
    if len(spec.shape) != 3 or (gaussianize and spec.bins is None):
        raise ValueError(f"models discrete images [height, width, channels]; {spec.name} has shape {spec.shape}")
    if min(levels, depth, width) < 1:
        raise ValueError(f"levels={levels}, depth={depth} and width={width} must be above zero")
    if any(side % 2**levels for side in spec.shape[:2]):
        raise ValueError(f"levels={levels} halves images of {spec.shape[0]}x{spec.shape[1]} too often; use fewer")
