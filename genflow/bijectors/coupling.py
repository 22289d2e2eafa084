"""Coupling layers: one part of x sets the parameters of an elementwise transform of the other."""

import math
from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

from genflow.bijectors.splits import Split, halves
from genflow.bijectors.transforms import Transform, affine
from genflow.core import Bijector, Network, combine, partition, sum_event


def coupling(transform: Transform, network: Callable[[int], Network], split: Split | None = None) -> Bijector:
    """z1 = x1, z2 = transform(network(x1, cond), x2): triangular Jacobian, log-det = sum of log-derivatives.

    Args:
      network: builds the conditioner for a number of output features; its last layer should start at zero.
      split: which part passes, `halves()` unless given.

    >>> from genflow.bijectors.transforms import additive; from genflow.networks import mlp
    >>> coupling(additive(), mlp((8,))).init(jax.random.key(0), jax.numpy.zeros((2, 4)))[1].shape
    (2, 4)

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, equations 4 to 8.
    """
    split = halves() if split is None else split

    def raw_params(params, x1, x2, cond, key):
        raw = split.select(_network_for(network, transform, x2).apply(params, x1, cond, key))
        raw = checkpoint_name(raw, "conditioner")
        return raw.reshape(*x2.shape, transform.num_params)

    def init(key, x, cond=None):
        x1, x2 = split.split(x)
        params = _network_for(network, transform, x2).init(key, x1, cond)
        return params, forward(params, x, cond)[0]

    def forward(params, x, cond=None, key=None):
        x1, x2 = split.split(x)
        z2, log_derivative = transform.forward(raw_params(params, x1, x2, cond, key), x2)
        return split.merge(x1, z2), sum_event(log_derivative)

    def inverse(params, z, cond=None, key=None):
        x1, z2 = split.split(z)
        x2, log_derivative = transform.inverse(raw_params(params, x1, z2, cond, key), z2)
        return split.merge(x1, x2), sum_event(log_derivative)

    def rebuild(params, z, cond=None, key=None):
        weights, constants = partition(params)
        x1, z2 = split.split(z)
        raw, network_vjp = jax.vjp(
            lambda weights, x1, cond: raw_params(combine(weights, constants), x1, z2, cond, key), weights, x1, cond
        )
        x2 = transform.inverse(raw, z2)[0]
        _, transform_vjp = jax.vjp(lambda raw, x2: _summed(transform.forward(raw, x2)), raw, x2)

        def vjp(grad_z, grad_log_det):
            grad_x1, grad_z2 = jax.vjp(split.merge, x1, z2)[1](grad_z)
            grad_raw, grad_x2 = transform_vjp((grad_z2, grad_log_det))
            grad_weights, grad_network, grad_cond = network_vjp(grad_raw)
            (grad_x,) = jax.vjp(split.split, z)[1]((grad_x1 + grad_network, grad_x2))
            return grad_weights, grad_x, grad_cond

        return split.merge(x1, x2), vjp

    return Bijector(init, forward, inverse, rebuild)


def _summed(transformed):
    z2, log_derivative = transformed
    return z2, sum_event(log_derivative)


def _network_for(network, transform, x2):
    """Images and tokens keep their axes, so a conditioner has features per pixel; vectors have them per event."""
    return network(transform.num_params * (x2.shape[-1] if x2.ndim > 2 else math.prod(x2.shape[1:])))


def on_passed(split: Split, layer: Bijector) -> Bijector:
    """The layer on the part that a split passes, and the other part as it is.

    >>> from genflow.bijectors.elementwise import shift_scale
    >>> on_passed(halves(), shift_scale()).init(jax.random.key(0), jax.numpy.zeros((1, 5)))[0]["raw"].shape
    (3, 2)

    Reference: Durkan et al. (2019), Neural spline flows, arXiv:1906.04032, section 3.2 (the conditioning half).
    """

    def init(key, x, cond=None):
        passed, changed = split.split(x)
        params, passed = layer.init(key, passed, cond)
        return params, split.merge(passed, changed)

    def apply(function):
        def run(params, x, cond=None, key=None):
            passed, changed = split.split(x)
            passed, log_det = function(params, passed, cond, key)
            return split.merge(passed, changed), log_det

        return run

    return Bijector(init, apply(layer.forward), apply(layer.inverse))


def split_prior(network: Callable[[int], Network]) -> Bijector:
    """Standardizes the second half given the first: z2 = (x2 - mean(x1)) * exp(-log_std(x1)).

    In front of `factor_out` it is Glow's learned split prior N(mean(x1), std(x1)^2), with a standard normal base.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, split priors of the official code.
    """
    return coupling(affine(lambda raw: -raw), network)
