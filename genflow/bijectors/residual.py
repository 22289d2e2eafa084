"""Residual flows: z = x + g(x) with a contraction g, inverted by fixed-point iteration.

log det(I + J) = sum_k (-1)^(k+1) / k tr(J^k) with J the Jacobian of g. How it is found is a function that `residual`
is given, `exact_log_det` or one made by `power_series`; all need vector-Jacobian products only.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from genflow.core import Bijector, Key, Params, combine, partition, sum_event
from genflow.networks.lipschitz import LipschitzNetwork

MAX_ITERATIONS = 1000  # of the inverse; a contraction of 0.98 needs 700 for seven digits
MAX_RANDOM_TERMS = 40  # Poisson(2) exceeds it once in 10^37 draws
PROBE = 0  # seed of the probe of a deterministic evaluation

Pull = Callable[[Array], tuple[Array]]  # v -> (v^T J,), as jax.vjp gives it for g at x
LogDet = Callable[[Pull, Array, Key | None], Float[Array, " B"]]


def exact_log_det(pull: Pull, x: Array, key: Key | None = None) -> Float[Array, " B"]:
    """Log |det (I + J)| of the whole Jacobian: one vector-Jacobian product for each dimension, for few dimensions."""
    dims = math.prod(x.shape[1:])
    basis = jnp.eye(dims, dtype=x.dtype).reshape(dims, 1, *x.shape[1:])
    rows = jax.vmap(lambda e: pull(jnp.broadcast_to(e, x.shape))[0])(basis)
    jacobian = rows.reshape(dims, x.shape[0], dims).swapaxes(0, 1)
    return jnp.linalg.slogdet(jnp.eye(dims, dtype=x.dtype) + jacobian)[1]


def power_series(terms: int = 20, exact_terms: int = 2, rate: float = 2.0) -> LogDet:
    """Estimates sum_k (-1)^(k+1) / k v^T J^k v with one Rademacher probe v for each example.

    With a key it is unbiased, value and gradient: `exact_terms` + Poisson(rate) terms, each divided by the
    probability that it is reached. Without one it is deterministic: the first `terms` terms, v from a constant
    seed. That value is still an estimate, off by the probe's error and by at most L^(terms + 1) / ((terms + 1) (1 - L))
    a dimension for a Lipschitz constant L; the rows of a batch have different probes, so that their errors average out.

    The gradient is the Neumann series sum_k (-1)^k v^T J^k dJ v, which needs the memory of one product and not of all.

    Reference: Chen et al. (2019), Residual Flows for invertible generative modeling, arXiv:1906.02735, equations 6, 8.
    """
    reached = np.concatenate([np.ones(exact_terms), _poisson_tail(rate)])

    def log_det(pull, x, key=None):
        if key is None:
            probe_key, count, weights = None, terms, np.ones(terms)
        else:
            probe_key, count_key = jax.random.split(key)
            count, weights = (jax.random.uniform(count_key) < reached).sum(), 1.0 / reached
        probe = rademacher(x, probe_key)
        value, left = _series(jax.lax.stop_gradient(pull), probe, count, jnp.asarray(weights, x.dtype))
        # w^T J v with w held: its gradient is the Neumann series, its value is taken out again
        surrogate = sum_event(pull(left)[0] * probe)
        return value + surrogate - jax.lax.stop_gradient(surrogate)

    return log_det


def rademacher(x: Array, key: Key | None = None) -> Array:
    """Signs of the shape of x: the probe v of Hutchinson's trace estimate v^T J v; without a key always the same."""
    return jax.random.rademacher(jax.random.key(PROBE) if key is None else key, x.shape, x.dtype)


def _poisson_tail(rate):
    """P(N >= j) for j = 1 .. MAX_RANDOM_TERMS, summed from the small end."""
    counts = range(1, 2 * MAX_RANDOM_TERMS)
    mass = [math.exp(n * math.log(rate) - rate - math.lgamma(n + 1)) for n in counts]
    return np.cumsum(mass[::-1])[::-1][:MAX_RANDOM_TERMS]


def _series(pull, probe, count, weights):
    """sum_k (-1)^(k+1) weights_k / k v^T J^k v [B], and w^T = sum_k (-1)^(k-1) weights_k v^T J^(k-1)."""

    def add_term(i, carry):
        value, left, product = carry
        weight = jnp.where(i % 2, -1, 1) * weights[i]
        left += weight * product
        product = pull(product)[0]
        return value + weight / (i + 1) * sum_event(product * probe), left, product

    start = (sum_event(jnp.zeros_like(probe)), jnp.zeros_like(probe), probe)
    value, left, _ = jax.lax.fori_loop(0, count, add_term, start)
    # kept by `repeat(..., memory='remat')`, or the whole series would be computed again
    return checkpoint_name(value, "conditioner"), checkpoint_name(left, "conditioner")


def residual(network: Callable[[int], LipschitzNetwork], log_det: LogDet = exact_log_det) -> Bijector:
    """z = x + g(x) with Lip(g) < 1, inverted by x <- z - g(x) until the update is rounding error.

    An example whose iteration does not settle (g is no contraction) comes back as NaN; `inverse_error` measures the
    others. Gradients pass through the inverse by the implicit function theorem.

    Args:
      network: builds g; the Lipschitz bound is the network's affair (`networks.lipschitz_mlp`, `lipschitz_conv`).
        Images ask for features per pixel, vectors for features per event.
      log_det: `exact_log_det` or `power_series()`.

    Reference: Behrmann et al. (2019), Invertible residual networks, arXiv:1811.00995, theorem 1 and algorithm 1.
    """

    def constrained(params, x, cond):
        return network(x.shape[-1]).constrain(params, x), cond

    def branch(variables, x):
        params, cond = variables
        return network(x.shape[-1]).apply(params, x, cond)

    def init(key, x, cond=None):
        params = network(x.shape[-1]).init(key, x, cond)
        return params, x + branch(constrained(params, x, cond), x)

    def at(variables, x, key):
        g, pull = jax.vjp(lambda x: branch(variables, x), x)
        return g, log_det(pull, x, key)

    def forward(params, x, cond=None, key=None):
        g, value = at(constrained(params, x, cond), x, key)
        return x + g, value

    def inverse(params, z, cond=None, key=None):
        variables = constrained(params, z, cond)
        x = _solve(branch, *partition(variables), z)
        return x, -at(variables, x, key)[1]

    return Bijector(init, forward, inverse)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(branch, weights, constants, z):
    """x with x + g(x) = z."""
    variables = combine(weights, constants)
    return _fixed_point(lambda x: z - branch(variables, x), z)


def _solve_forward(branch, weights, constants, z):
    x = _solve(branch, weights, constants, z)
    return x, (weights, constants, x)


def _solve_backward(branch, saved, grad_x):
    """(I + J)^T y = grad_x, by the same iteration; then grad_z = y and grad_weights = -y^T dg/dweights."""
    weights, constants, x = saved
    _, pull = jax.vjp(lambda weights, x: branch(combine(weights, constants), x), weights, x)
    y = _fixed_point(lambda y: grad_x - pull(y)[1], grad_x)
    return jax.tree.map(jnp.negative, pull(y)[0]), None, y


_solve.defvjp(_solve_forward, _solve_backward)


def _fixed_point(step, start):
    """Iterates until no example moves by more than rounding error; NaN where one still moved by a lot at the end."""
    epsilon = jnp.finfo(start.dtype).eps

    def norm(a):  # no squares: they overflow long before a divergent x does, and inf in the divisor looks settled
        return jnp.abs(a).max(tuple(range(1, a.ndim)), keepdims=True)

    def iterate(carry):
        x, _, i = carry
        new = step(x)
        return new, norm(new - x) / (1.0 + norm(new)), i + 1

    def unfinished(carry):
        return jnp.any(carry[1] > 2 * epsilon) & (carry[2] < MAX_ITERATIONS)

    x, update, _ = jax.lax.while_loop(unfinished, iterate, (start, jnp.full_like(norm(start), jnp.inf), 0))
    return jnp.where(update < jnp.sqrt(epsilon), x, jnp.nan)


def inverse_error(bijector: Bijector, params: Params, z: Array, cond: Array | None = None) -> Float[Array, " B"]:
    """Root mean square of f(f^-1(z)) - z for each example: the residual of an inverse found by iteration."""
    x, _ = bijector.inverse(params, z, cond)
    back, _ = bijector.forward(params, x, cond)
    return jnp.sqrt(sum_event((back - z) ** 2) / math.prod(z.shape[1:]))
