"""FFJORD: continuous flows with a free-form Jacobian."""

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.models.flow import flow
from genflow.networks import concatsquash_conv, concatsquash_mlp

EXACT_DIMS = 16  # of vectors whose trace is exact


def ffjord(
    spec: Spec,
    levels: int = 2,
    depth: int = 2,
    widths: tuple[int, ...] = (64, 64, 64),
    alpha: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
) -> Model:
    """Logit, then on each of `levels` levels `depth` continuous flows, squeeze, `depth` more, half factored out.

    Training draws the probe of the trace anew for each step, log_prob uses a fixed one for each example, so it is an
    estimate of the dequantization bound ('estimate').

    Args:
      levels: the last one factors nothing out.
      widths: hidden channels of the 3x3 convolutions of the dynamics.
      alpha: of the logit, see `bijectors.logit`.
      rtol, atol: of the solver, see `bijectors.continuous`.

    Reference: Grathwohl et al. (2019), FFJORD, arXiv:1810.01367, section 4.2.
    """
    _check(spec, levels, depth, widths)
    steps = bj.repeat(bj.continuous(concatsquash_conv(widths), bj.one_direction, rtol, atol), depth)

    def level(rest):
        both = bj.chain(before=steps, squeeze=bj.squeeze(), after=steps)
        return both if rest is None else bj.chain(level=both, next=bj.factor_out(rest))

    bijector = None
    for _ in range(levels):
        bijector = level(bijector)
    bijector = bj.chain(logit=bj.logit(alpha), norm=bj.actnorm(), levels=bijector)
    return flow(spec, bijector, conditional=conditional)._replace(bound="estimate")


def _check(spec, levels, depth, widths):
    if len(spec.shape) != 3 or spec.bins is None:
        raise ValueError(f"models discrete images [height, width, channels]; {spec.name} has shape {spec.shape}")
    if min((levels, depth, *widths)) < 1:
        raise ValueError(f"levels={levels}, depth={depth} and widths={widths} must be above zero")
    if any(side % 2**levels for side in spec.shape[:2]):
        raise ValueError(f"levels={levels} halves images of {spec.shape[0]}x{spec.shape[1]} too often; use fewer")


def ffjord_mlp(
    spec: Spec,
    depth: int = 1,
    widths: tuple[int, ...] = (64, 64, 64),
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
) -> Model:
    """ActNorm, then `depth` continuous flows on vectors.

    Up to EXACT_DIMS dimensions the trace is exact and the solver's tolerance is all that is between log_prob and the
    true value; with more it is Hutchinson's estimate ('estimate').

    Args:
      widths: hidden units of the dynamics.
      rtol, atol: of the solver, see `bijectors.continuous`.

    Reference: Grathwohl et al. (2019), FFJORD, arXiv:1810.01367, section 4.1.
    """
    if len(spec.shape) != 1 or min((depth, *widths)) < 1:
        raise ValueError(f"models vectors with depth={depth} and widths={widths} above zero; events are {spec.shape}")
    exact = spec.dims <= EXACT_DIMS
    probes = bj.every_direction if exact else bj.one_direction
    steps = bj.repeat(bj.continuous(concatsquash_mlp(widths), probes, rtol, atol), depth)
    model = flow(spec, bj.chain(norm=bj.actnorm(), steps=steps, prior=bj.channel_affine()), conditional=conditional)
    return model if exact else model._replace(bound="estimate")
