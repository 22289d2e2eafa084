"""Flows of vectors with autoregressive layers: masked autoregressive flows and neural spline flows."""

from genflow import bijectors as bj
from genflow.core import Bijector, Model, Spec
from genflow.models.flow import flow
from genflow.networks import activation_by_name, made, residual_made, residual_mlp


def maf(
    spec: Spec,
    depth: int = 5,
    widths: tuple[int, ...] = (512, 512),
    activation: str = "relu",
    alpha: float = 1e-6,
    memory: str = "store",
    conditional: bool = False,
) -> Model:
    """Masked autoregressive flow: `depth` layers x_d = mu(x_<d) + exp(alpha(x_<d)) z_d, the order reversed in between.

    ActNorm stands in front of each layer where the paper has batch normalization behind it, so that a density does not
    depend on its batch; log-scales are bounded (`bijectors.gaussian`). Images are flattened behind a logit.

    Args:
      widths: hidden units of each layer's masked network.
      activation: 'relu', 'tanh' or another of `networks.ACTIVATIONS`.
      alpha: of discrete data only: they are squeezed into [alpha, 1 - alpha] before the logit.
      memory: see `bijectors.repeat`; 'invert' goes through the dimensions one by one in the backward pass.

    Reference: Papamakarios et al. (2017), Masked autoregressive flow for density estimation, arXiv:1705.07057.
    """
    _check(spec, depth, *widths)
    network = made(widths, activation_by_name(activation))
    layer = bj.masked_autoregressive(bj.gaussian(), network)
    step = bj.chain(actnorm=bj.actnorm(), autoregressive=layer, flip=bj.flip())
    stack = bj.chain(steps=bj.repeat(step, depth, memory), prior=bj.channel_affine())
    if spec.bins is not None:
        stack = bj.chain(logit=bj.logit(alpha), flatten=bj.flatten(spec.shape), flow=stack)
    return flow(spec, stack, conditional=conditional)


def nsf(
    spec: Spec,
    depth: int = 10,
    width: int = 256,
    blocks: int = 2,
    bins: int = 8,
    bound: float = 3.0,
    dropout: float = 0.0,
    autoregressive: bool = False,
    memory: str = "store",
    conditional: bool = False,
) -> Model:
    """Rational-quadratic neural spline flow, RQ-NSF (C) with couplings or RQ-NSF (AR) with autoregressive layers.

    Each of `depth` steps is a random permutation, an LU-decomposed matrix and splines; one more permutation and matrix
    follow. The half that conditions a coupling is itself transformed by splines that depend on nothing.

    Args:
      width: hidden units of the residual conditioners; blocks: their residual blocks.
      bins: of a spline, on [-bound, bound]; the identity outside.
      dropout: fraction of a residual block's units that a training step drops.
      memory: see `bijectors.repeat`.

    Reference: Durkan et al. (2019), Neural spline flows, arXiv:1906.04032, section 4.1.
    """
    _check(spec, depth, width, blocks)
    if spec.bins is not None:
        raise ValueError(f"models continuous vectors; {spec.name} is discrete")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be in [0, 1)")
    if autoregressive and dropout and memory == "invert":
        raise ValueError("memory='invert' cannot rebuild what dropout hid from an autoregressive layer; use 'remat'")
    spline = bj.rational_quadratic_spline(bins, bound)
    if autoregressive:
        layer = bj.masked_autoregressive(spline, residual_made(width, blocks, dropout=dropout))
    else:
        layer = _spline_coupling(spline, width, blocks, dropout)
    step = bj.chain(**_mixing(), splines=layer)
    return flow(spec, bj.chain(steps=bj.repeat(step, depth, memory), **_mixing()), conditional=conditional)


def _mixing() -> dict[str, Bijector]:
    return {"permutation": bj.permutation(), "linear": bj.lu_linear()}


def _spline_coupling(spline, width, blocks, dropout):
    coupling = bj.coupling(spline, residual_mlp(width, blocks, dropout))
    return bj.chain(coupling=coupling, passed=bj.on_passed(bj.halves(), bj.elementwise(spline)))


def _check(spec, depth, *widths):
    if (spec.bins is None and len(spec.shape) != 1) or spec.dims < 2:
        raise ValueError(f"models vectors of two dimensions or more, or images; {spec.name} has shape {spec.shape}")
    if min((depth, *widths)) < 1:
        raise ValueError(f"depth={depth} and widths or blocks {widths} must be above zero")
