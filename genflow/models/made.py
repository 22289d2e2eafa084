"""MADE: masked autoencoders of discrete data, with one mask or an ensemble of masks and orderings."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from genflow.core import Model, Spec
from genflow.models.autoregressive import autoregressive, softmax_output
from genflow.networks import arranged, masked_perceptron


def made(
    spec: Spec,
    widths: tuple[int, ...] = (500,),
    num_masks: int = 1,
    shuffle: bool = False,
    direct: bool = True,
    seed: int = 0,
    conditional: bool = False,
) -> Model:
    """P(x) = (1/M) sum_m prod_i p_m(x_i | x before i in the m-th ordering): M masks on one set of weights.

    A training step takes one of the masks; log_prob is exact for the ensemble, the log-mean-exp of the masks' joint
    probabilities (a mean of their outputs would show pixels what they must not see). A call that draws draws from one
    mask, which its key chooses. The ensemble has no terms of single sites.

    Args:
      num_masks: M. Each deals the levels anew among the hidden units, every level to equally many units (in the paper
        they are independent).
      shuffle: each mask has an ordering of its own; otherwise all have the natural one.
      direct: connections from inputs to outputs.
      seed: of the masks and orderings.

    Raises:
      ValueError: a width or num_masks below one, or nothing between inputs and outputs.

    Reference: Germain et al. (2015), MADE: Masked autoencoder for distribution estimation, arXiv:1502.03509, sections 4
      and 4.2 (equations 8 to 11), algorithm 1.
    """
    if min((num_masks, *widths)) < 1:
        raise ValueError(f"num_masks={num_masks} and widths={widths} must be above zero")
    if not widths and not direct:
        raise ValueError("widths=() and direct=False leave no connections; set one of them")
    output = softmax_output(spec)
    network = masked_perceptron(widths, spec.bins or 1, direct)(output.num_params)
    one = autoregressive(spec, network, output, conditional=conditional)
    orders, deals = draw_masks(spec.dims, widths, num_masks, shuffle, seed)
    return one if num_masks == 1 and not shuffle else _rearranged(one, spec, orders, deals, shuffle)


def _rearranged(one, spec, orders, deals, shuffle):
    """The ensemble of the masks of a model on natural order; of one mask in another order, all that a model has."""
    num_masks = len(orders)

    def member(params, m):
        if num_masks == 1:
            return params
        order = jnp.asarray(orders)[m] if shuffle else None
        return {"model": arranged(params["model"], order, [jnp.asarray(deal)[m] for deal in deals])}

    def reorder(x, order):
        return jnp.asarray(x).reshape(x.shape[0], -1)[:, order].reshape(x.shape)

    def in_order(m, batch):
        return batch | {"x": reorder(batch["x"], jnp.asarray(orders)[m])}

    def choose(key):
        key_member, key = jax.random.split(key)
        return jax.random.randint(key_member, (), 0, num_masks), key

    def loss(params, state, key, batch):
        m, key = choose(key)
        return one.losses["model"](member(params, m), state, key, in_order(m, batch))

    def log_prob(params, state, key, batch):
        def joint(m):
            return one.log_prob(member(params, m), state, key, in_order(m, batch))

        return jax.nn.logsumexp(jax.lax.map(joint, jnp.arange(num_masks)), axis=0) - math.log(num_masks)

    def complete(params, state, key, x, known, *args, **kwargs):
        m, key = choose(key)
        order = jnp.asarray(orders)[m]
        known = jnp.broadcast_to(known, x.shape)
        drawn = one.complete(member(params, m), state, key, reorder(x, order), reorder(known, order), *args, **kwargs)
        return reorder(drawn, jnp.argsort(order))

    def sample(params, state, key, num, cond=None, temperature=1.0):
        x = jnp.zeros((num, *spec.shape), jnp.int32)
        return complete(params, state, key, x, jnp.zeros(spec.shape, bool), cond, temperature)

    def site_log_prob(params, state, key, batch):
        return one.site_log_prob(member(params, 0), state, key, in_order(0, batch))

    def sites(x):
        return one.sites(reorder(x, orders[0]))

    single = (
        {"site_log_prob": site_log_prob, "sites": sites} if num_masks == 1 else {"site_log_prob": None, "sites": None}
    )
    return one._replace(losses={"model": loss}, sample=sample, log_prob=log_prob, complete=complete, **single)


def draw_masks(num_sites: int, widths: tuple[int, ...], num_masks: int, shuffle: bool, seed: int):
    """Orderings [M, num_sites], and for each hidden layer [M, width]: permutations, the same everywhere."""
    random = np.random.RandomState(seed)  # the one generator whose stream NumPy promises never to change

    def permutations(size):
        return np.stack([random.permutation(size) for _ in range(num_masks)])

    orders = permutations(num_sites) if shuffle else np.tile(np.arange(num_sites), (num_masks, 1))
    return orders, [permutations(width) for width in widths]
