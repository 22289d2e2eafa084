"""NICE."""

import jax

from genflow import bijectors as bj
from genflow.core import Model, Spec
from genflow.distributions import standard_logistic
from genflow.models.flow import flow
from genflow.networks import mlp


def nice(
    spec: Spec, depth: int = 4, widths: tuple[int, ...] = (1000,) * 5, memory: str = "store", conditional: bool = False
) -> Model:
    """Additive couplings between the even and the odd dimensions, one diagonal scaling, a logistic prior.

    The scaling starts from the first batch and has a shift too.

    Args:
      depth: couplings; even, the halves take turns.

    Reference: Dinh et al. (2015), NICE: Non-linear independent components estimation, arXiv:1410.8516, sections 3, 5.1.
    """
    if spec.dims < 2 or depth < 2 or depth % 2:
        raise ValueError(f"depth={depth} must be even and above zero, and events need two dimensions or more")
    if min((depth, *widths)) < 1:
        raise ValueError(f"widths={widths} must be above zero")
    network = mlp(widths, activation=jax.nn.relu, zero_last=True)
    pair = bj.chain(
        even=bj.coupling(bj.additive(), network, bj.alternating()),
        odd=bj.coupling(bj.additive(), network, bj.alternating(swap=True)),
    )
    bijector = bj.chain(
        flatten=bj.flatten(spec.shape),
        couplings=bj.repeat(pair, depth // 2, memory),
        scale=bj.actnorm(),  # from the first batch: from one, Adam takes thousands of steps to reach the pixels' scales
    )
    return flow(spec, bijector, base=standard_logistic(), conditional=conditional)
