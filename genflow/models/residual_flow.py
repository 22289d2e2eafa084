"""Residual flows: invertible residual networks with an unbiased estimate of the log-determinant."""

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.models.flow import flow
from genflow.networks import lipschitz_conv, lipschitz_mlp

EXACT_DIMS = 16  # of vectors whose Jacobian is built in full


def residual_flow(
    spec: Spec,
    levels: int = 3,
    depth: int = 16,
    width: int = 512,
    dense_width: int = 128,
    coefficient: float = 0.98,
    alpha: float = 0.05,
    memory: str = "remat",
    conditional: bool = False,
) -> Model:
    """Logit, then on each of `levels` levels `depth` pairs of ActNorm and z = x + g(x), g of 3x3, 1x1, 3x3 kernels.

    Training estimates the log-det without bias; log_prob sums 20 terms of its power series with one fixed probe for
    each example, so it is an estimate of the dequantization bound ('estimate').

    Args:
      width: hidden channels.
      dense_width: hidden units of a fully connected residual block at the end of each level; 0: none.
      coefficient: bound on the spectral norm of each kernel, below 1; g's Lipschitz constant is below its cube.
      alpha: of the logit, see `bijectors.logit`.
      memory: see `bijectors.repeat`.

    Reference: Chen et al. (2019), Residual Flows for invertible generative modeling, arXiv:1906.02735, appendix E.
    """
    _check(spec, levels, depth, width, coefficient)
    block = bj.chain(actnorm=bj.actnorm(), residual=bj.residual(lipschitz_conv(width, coefficient), bj.power_series()))

    def level(i):
        H, W, C = spec.shape[0] >> i, spec.shape[1] >> i, spec.shape[2] << 2 * i
        parts = {"squeeze": bj.squeeze()} if i else {}
        parts["blocks"] = bj.repeat(block, depth, memory)
        if dense_width:
            dense = bj.residual(lipschitz_mlp((dense_width,), coefficient), bj.power_series())
            flat = bj.flatten((H, W, C))
            parts |= {"flatten": flat, "dense": dense, "unflatten": bj.invert(flat)}
        return bj.chain(**parts)

    images = {f"level{i}": level(i) for i in range(levels)}
    bijector = bj.chain(logit=bj.logit(alpha), **images, norm=bj.actnorm())
    return flow(spec, bijector, conditional=conditional)._replace(bound="estimate")


def _check(spec, levels, depth, width, coefficient):
    if len(spec.shape) != 3 or spec.bins is None:
        raise ValueError(f"models discrete images [height, width, channels]; {spec.name} has shape {spec.shape}")
    if min(levels, depth, width) < 1:
        raise ValueError(f"levels={levels}, depth={depth} and width={width} must be above zero")
    if any(side % 2 ** (levels - 1) for side in spec.shape[:2]):
        raise ValueError(f"levels={levels} halves images of {spec.shape[0]}x{spec.shape[1]} too often; use fewer")
    _check_coefficient(coefficient)


def _check_coefficient(coefficient):
    if not 0 < coefficient < 1:
        raise ValueError(f"coefficient={coefficient} must be above 0 and below 1, or there is no inverse")


def residual_mlp_flow(
    spec: Spec,
    depth: int = 16,
    widths: tuple[int, ...] = (64, 64),
    coefficient: float = 0.98,
    memory: str = "remat",
    conditional: bool = False,
) -> Model:
    """`depth` pairs of ActNorm and z = x + g(x) on vectors, g a perceptron.

    Up to EXACT_DIMS dimensions the log-det is exact, of the full Jacobian; with more it is estimated as in
    `residual_flow`, and so is log_prob ('estimate').

    Args:
      coefficient: bound on the spectral norm of each kernel, below 1.
      memory: see `bijectors.repeat`.

    Reference: Chen et al. (2019), Residual Flows for invertible generative modeling, arXiv:1906.02735, section 5.1.
    """
    if len(spec.shape) != 1 or min((depth, *widths)) < 1:
        raise ValueError(f"models vectors with depth={depth} and widths={widths} above zero; events are {spec.shape}")
    _check_coefficient(coefficient)
    exact = spec.dims <= EXACT_DIMS
    log_det = bj.exact_log_det if exact else bj.power_series()
    block = bj.chain(actnorm=bj.actnorm(), residual=bj.residual(lipschitz_mlp(widths, coefficient), log_det))
    bijector = bj.chain(blocks=bj.repeat(block, depth, memory), norm=bj.actnorm())
    model = flow(spec, bijector, conditional=conditional)
    return model if exact else model._replace(bound="estimate")
