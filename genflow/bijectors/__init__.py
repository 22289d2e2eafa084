"""Invertible maps with tractable log-determinants."""

from genflow.bijectors.combinators import MEMORY, chain, factor_out, identity, invert, repeat
from genflow.bijectors.coupling import (
    Split,
    Transform,
    additive,
    affine,
    coupling,
    halves,
    sigmoid_scale,
    split_prior,
    tanh_scale,
)
from genflow.bijectors.elementwise import actnorm, channel_affine
from genflow.bijectors.linear import conv1x1
from genflow.bijectors.marginal import histogram_gaussianization
from genflow.bijectors.reshape import flip, squeeze

__all__ = [
    "MEMORY",
    "Split",
    "Transform",
    "actnorm",
    "additive",
    "affine",
    "chain",
    "channel_affine",
    "conv1x1",
    "coupling",
    "factor_out",
    "flip",
    "halves",
    "histogram_gaussianization",
    "identity",
    "invert",
    "repeat",
    "sigmoid_scale",
    "split_prior",
    "squeeze",
    "tanh_scale",
]
