"""Invertible maps with tractable log-determinants."""

from genflow.bijectors.autoregressive import forget_gate, gaussian, gaussian_autoregressive, masked_autoregressive
from genflow.bijectors.combinators import MEMORY, chain, factor_out, identity, invert, repeat
from genflow.bijectors.continuous import continuous, every_direction, function_evaluations, one_direction
from genflow.bijectors.coupling import coupling, on_passed, split_prior
from genflow.bijectors.elementwise import (
    actnorm,
    channel_affine,
    elementwise,
    leaky_relu,
    logit,
    shift_scale,
    smooth_leaky_relu,
)
from genflow.bijectors.linear import cayley, conv1x1, conv1x1_plain, householder, lu_linear, permutation, qr_linear
from genflow.bijectors.marginal import histogram_gaussianization
from genflow.bijectors.mixture import mixture_cdf
from genflow.bijectors.patches import parity_order, patchify, rotate_parity
from genflow.bijectors.planar import planar
from genflow.bijectors.reshape import flatten, flip, squeeze
from genflow.bijectors.residual import exact_log_det, inverse_error, power_series, residual
from genflow.bijectors.splines import rational_quadratic_spline
from genflow.bijectors.splits import Split, alternating, checkerboard, halves
from genflow.bijectors.transformer import token_autoregressive
from genflow.bijectors.transforms import (
    Transform,
    additive,
    affine,
    double_sigmoid_scale,
    learned_tanh,
    sigmoid_scale,
    sinh_arcsinh,
    tanh_scale,
)

__all__ = [
    "MEMORY",
    "Split",
    "Transform",
    "actnorm",
    "additive",
    "affine",
    "alternating",
    "cayley",
    "chain",
    "channel_affine",
    "checkerboard",
    "continuous",
    "conv1x1",
    "conv1x1_plain",
    "coupling",
    "double_sigmoid_scale",
    "elementwise",
    "every_direction",
    "exact_log_det",
    "factor_out",
    "flatten",
    "flip",
    "forget_gate",
    "function_evaluations",
    "gaussian",
    "gaussian_autoregressive",
    "halves",
    "histogram_gaussianization",
    "householder",
    "identity",
    "inverse_error",
    "invert",
    "leaky_relu",
    "learned_tanh",
    "logit",
    "lu_linear",
    "masked_autoregressive",
    "mixture_cdf",
    "on_passed",
    "one_direction",
    "parity_order",
    "patchify",
    "permutation",
    "planar",
    "power_series",
    "qr_linear",
    "rational_quadratic_spline",
    "repeat",
    "residual",
    "rotate_parity",
    "shift_scale",
    "sigmoid_scale",
    "sinh_arcsinh",
    "smooth_leaky_relu",
    "split_prior",
    "squeeze",
    "tanh_scale",
    "token_autoregressive",
]
