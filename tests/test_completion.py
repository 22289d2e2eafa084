"""Inpainting against enumeration: the weights give p(x_k), the draws follow p(x_u | x_k)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow.analysis.completion import can_complete, inpaint, log_prob_of_part
from genflow.core import Spec
from genflow.models import build

SPEC = Spec("bits", (2, 3, 1), 2)
KNOWN_LATER = np.array([[0, 1, 0], [0, 1, 1]], bool)[..., None]
KNOWN_FIRST = np.array([[1, 1, 1], [0, 0, 0]], bool)[..., None]


@functools.cache
def enumerated():
    """A model of six bits, all 64 events, and the probability of each."""
    model = build({"name": "markov", "order": 4, "widths": (8,)}, SPEC)
    events = jnp.array(list(itertools.product((0, 1), repeat=6)), jnp.uint8).reshape(-1, *SPEC.shape)
    params, state = model.init(jax.random.key(0), {"x": events})
    params = perturbed(params, 1, 1.0)
    log_probs = np.asarray(jax.jit(model.log_prob)(params, state, None, {"x": events}), np.float64)
    return model, params, state, np.asarray(events), np.exp(log_probs)


def test_the_probabilities_of_all_events_sum_to_one():
    np.testing.assert_allclose(enumerated()[-1].sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("known", [KNOWN_LATER, KNOWN_FIRST], ids=["later", "first"])
def test_inpainting_follows_the_conditional_distribution(known):
    model, params, state, events, probs = enumerated()
    x = np.repeat(events[21:22], 400, axis=0)
    agrees = (events[:, known] == x[0, known]).all(1)
    found = inpaint(model, params, state, jax.random.key(2), jnp.asarray(x), jnp.asarray(known), 40)
    assert (found.x[:, known] == x[:, known]).all()
    error = np.exp(found.log_prob_known).std() / 20
    np.testing.assert_allclose(np.exp(found.log_prob_known).mean(), probs[agrees].sum(), atol=4 * error + 1e-6)
    wanted = (probs[agrees, None] * events[agrees][:, ~known]).sum(0) / probs[agrees].sum()
    np.testing.assert_allclose(found.x[:, ~known].mean(0), wanted, atol=0.12)
    is_first = known is KNOWN_FIRST
    assert (np.abs(found.effective_samples - 40) < 1e-2).all() == is_first
    assert (found.effective_samples >= 1).all()


def test_the_score_of_a_part_at_the_end_is_its_conditional_probability():
    model, params, state, events, probs = enumerated()
    first = events[21, KNOWN_FIRST]
    agrees = (events[:, KNOWN_FIRST] == first).all(1)
    score = log_prob_of_part(model, params, state, jnp.asarray(events[21:22]), jnp.asarray(~KNOWN_FIRST))
    np.testing.assert_allclose(np.exp(score[0]), probs[21] / probs[agrees].sum(), rtol=1e-5)
    score = log_prob_of_part(model, params, state, jnp.asarray(events[21:22]), jnp.asarray(KNOWN_FIRST))
    np.testing.assert_allclose(np.exp(score[0]), probs[agrees].sum(), rtol=1e-5)


def test_an_order_says_what_can_be_completed():
    model = enumerated()[0]
    assert can_complete(model, KNOWN_FIRST, SPEC.shape)
    assert not can_complete(model, KNOWN_LATER, SPEC.shape)
    shuffled = build({"name": "made", "widths": (4,), "shuffle": True}, SPEC)
    ensemble = build({"name": "made", "widths": (4,), "num_masks": 2}, SPEC)
    assert not can_complete(shuffled, KNOWN_FIRST, SPEC.shape)
    assert not can_complete(ensemble, KNOWN_FIRST, SPEC.shape)


def test_a_part_that_divides_a_pixel_is_refused():
    spec = Spec("colors", (2, 2, 2), 4)
    model = build({"name": "pixelcnnpp", "width": 4, "stages": 1, "blocks": 1, "components": 1}, spec)
    red = np.zeros(spec.shape, bool)
    red[..., 0] = True
    x = jnp.zeros((1, *spec.shape), jnp.uint8)
    scored = model._replace(site_log_prob=lambda *_: jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="a part divides a site"):
        jax.eval_shape(lambda: log_prob_of_part(scored, {}, {}, x, red))
    with pytest.raises(ValueError, match="a part divides a site"):
        jax.eval_shape(lambda key: model.complete({"model": {}}, {}, key, x, red), jax.random.key(0))


def test_a_flow_cannot_complete():
    flow = build({"name": "coupling_flow", "depth": 1, "widths": (4,)}, Spec("points", (2,), None))
    with pytest.raises(ValueError, match="needs an autoregressive model"):
        inpaint(flow, {}, {}, jax.random.key(0), jnp.zeros((1, 2)), jnp.ones(2, bool))
