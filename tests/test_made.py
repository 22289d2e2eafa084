"""MADE with several masks and orderings: what a member sees, what the ensemble is, and that draws follow it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.models.made import draw_masks
from genflow.networks import arranged, masked_perceptron

BITS = Spec("bits", (2, 3, 1), 2)
EVERY = np.array(list(itertools.product((0, 1), repeat=6)), np.int32)  # all 64 images
WIDTHS, MASKS = (10, 9), 3


@functools.cache
def ensemble():
    """(model, params, log_prob of every image, logits of every member [M, 64, 6] in raster order, orders)."""
    model = build({"name": "made", "widths": WIDTHS, "num_masks": MASKS, "shuffle": True}, BITS)
    batch = {"x": EVERY.reshape(-1, *BITS.shape)}
    params = perturbed(model.init(jax.random.key(0), batch)[0], 1, 1.0)
    orders, deals = draw_masks(6, WIDTHS, MASKS, shuffle=True, seed=0)
    network = masked_perceptron(WIDTHS, 2)(1)

    @jax.jit
    def evaluate(params):
        logits = [
            network.apply(arranged(params["model"], order, [deal[m] for deal in deals]), EVERY[:, order, None])
            for m, order in enumerate(orders)
        ]
        return model.log_prob(params, {}, None, batch), jnp.stack(logits)[..., 0]

    log_prob, logits = evaluate(params)
    raster = [a[:, np.argsort(order)] for a, order in zip(np.asarray(logits, np.float64), orders, strict=True)]
    return model, params, np.asarray(log_prob, np.float64), np.stack(raster), orders


def joint(logits):
    """Log-probability of every image under logits [..., 64, 6] in raster order."""
    return -np.logaddexp(0, np.where(EVERY == 1, -logits, logits)).sum(-1)


def test_a_pixel_sees_those_before_it_in_the_ordering_of_the_member():
    *_, logits, orders = ensemble()
    assert len({tuple(order) for order in orders}) == MASKS
    for member, order in zip(logits, orders, strict=True):
        for i, pixel in enumerate(order):
            seen = EVERY[:, order[:i]] @ 2 ** np.arange(i)
            for value in range(2**i):
                np.testing.assert_allclose(member[seen == value, pixel], member[seen == value, pixel][0], rtol=1e-4)
            assert i == 0 or np.ptp(member[:, pixel]) > 1e-2


def test_the_ensemble_is_the_mean_of_joint_probabilities():
    _, _, log_prob, logits, _ = ensemble()
    np.testing.assert_allclose(log_prob, np.log(np.exp(joint(logits)).mean(0)), rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-5)


def test_a_mean_of_logits_is_no_distribution():
    """Each pixel would see those after it through the other members."""
    logits = ensemble()[3]
    assert abs(np.exp(joint(logits.mean(0))).sum() - 1.0) > 0.02


def test_draws_follow_the_ensemble():
    model, params, log_prob, *_ = ensemble()
    keys = jax.random.split(jax.random.key(3), 1_000)
    draws = jax.jit(jax.vmap(lambda key: model.sample(params, {}, key, 8)))(keys).reshape(-1, 6)
    counts = np.bincount(np.asarray(draws, int) @ 2 ** np.arange(6)[::-1], minlength=64)
    assert 0.5 * np.abs(counts / counts.sum() - np.exp(log_prob)).sum() < 0.06


def test_one_mask_in_an_order_of_its_own_scores_its_sites_in_that_order():
    model = build({"name": "made", "widths": (), "shuffle": True, "seed": 1}, BITS)
    batch = {"x": EVERY.reshape(-1, *BITS.shape)}
    params = perturbed(model.init(jax.random.key(0), batch)[0], 1, 1.0)
    terms, log_prob = jax.jit(lambda p: (model.site_log_prob(p, {}, None, batch), model.log_prob(p, {}, None, batch)))(
        params
    )
    sites = np.asarray(model.sites(batch["x"]))[..., 0]
    assert (sites != EVERY).any()
    for i in range(6):
        seen = sites[:, : i + 1] @ 2 ** np.arange(i + 1)
        np.testing.assert_allclose(terms[:, i], [terms[seen == value, i][0] for value in seen], rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-5)


def test_the_gradient_of_an_arrangement_is_that_of_indexing():
    params = {"output": {"kernel": jnp.arange(16.0).reshape(4, 4), "bias": jnp.arange(4.0)}}
    order = np.array([2, 0, 3, 1])

    def by_indices(params):
        return jnp.sin(params["output"]["kernel"][order][:, order] * np.arange(4)).sum()

    def by_arrangement(params):
        return jnp.sin(arranged(params, jnp.asarray(order), [])["output"]["kernel"] * np.arange(4)).sum()

    wanted, got = jax.grad(by_indices)(params), jax.grad(by_arrangement)(params)
    np.testing.assert_allclose(got["output"]["kernel"], wanted["output"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"num_masks": 0}, "num_masks=0"),
        ({"widths": (0,)}, "widths=.0,. must be above zero"),
        ({"widths": (), "direct": False}, "leave no connections"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(section, message):
    with pytest.raises(UserError, match=message):
        build({"name": "made"} | section, BITS)
