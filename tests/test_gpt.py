"""The transformer decoder: its start, its dropout, its positions, attention in pieces, a step that copies nothing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow.core import Spec
from genflow.distributions import categorical
from genflow.errors import UserError
from genflow.models import build
from genflow.networks import gpt
from genflow.networks.attention import attention, causal_attention, drop, rotary
from genflow.networks.gpt import STDDEV
from genflow.samplers import draw_sites

BINS, WIDTH, LAYERS = 7, 16, 3
NETWORK = gpt((6,), BINS, WIDTH, LAYERS, 2)(BINS)
X = jax.random.randint(jax.random.key(0), (4, 6, 1), 0, BINS)
PARAMS = NETWORK.init(jax.random.key(1), X)


def test_weights_start_as_in_gpt_2_and_the_prediction_near_uniform():
    blocks = PARAMS["blocks"]
    for name, stddev in {"hidden": STDDEV, "output": STDDEV / (2 * LAYERS) ** 0.5}.items():
        np.testing.assert_allclose(blocks[name]["kernel"].std(), stddev, rtol=0.05)
    np.testing.assert_allclose(blocks["projection"]["kernel"].std(), STDDEV / (2 * LAYERS) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(blocks["attention"]["kernel"].std(), STDDEV, rtol=0.1)
    nll = -categorical(BINS).log_prob(NETWORK.apply(PARAMS, X), X)
    np.testing.assert_allclose(nll, np.log(BINS), atol=0.4)
    assert nll.std() > 0


def test_the_first_site_sees_no_token_but_a_learned_start():
    raw = jax.jit(NETWORK.apply)(PARAMS, X)
    np.testing.assert_allclose(raw[:, 0], jnp.broadcast_to(raw[:1, 0], raw[:, 0].shape), rtol=1e-6)
    moved = PARAMS | {"embedding": PARAMS["embedding"].at[BINS].add(jnp.arange(WIDTH) % 3)}
    assert (np.abs(jax.jit(NETWORK.apply)(moved, X)[:, 0] - raw[:, 0]).max(-1) > 1e-3).all()


def test_dropout_falls_only_where_a_key_is_given_and_keeps_the_mean():
    network = gpt((6,), BINS, WIDTH, 1, 2, dropout=0.5)(BINS)
    params = network.init(jax.random.key(1), X)
    apply = jax.jit(network.apply)
    still = gpt((6,), BINS, WIDTH, 1, 2)(BINS).apply(params, X)
    np.testing.assert_allclose(apply(params, X), still, rtol=1e-5, atol=1e-6)
    one, other = (apply(params, X, None, jax.random.key(seed)) for seed in (0, 1))
    assert (np.abs(one - other).max((1, 2)) > 1e-3).all()
    dropped = np.asarray(drop(jax.random.key(0), jnp.ones((100, 100)), 0.25))
    assert set(np.unique(dropped).round(6)) == {0.0, np.float32(1 / 0.75).round(6)}
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.02)


def test_every_place_of_dropout_is_used():
    """Embedding, attention weights, both branches of a block: each draws a mask of its own in the compiled program."""
    network = gpt((6,), BINS, WIDTH, 1, 2, dropout=0.5)(BINS)
    text = str(jax.make_jaxpr(lambda key: network.apply(PARAMS | {"blocks": ONE}, X, None, key))(jax.random.key(0)))
    masks = re.findall(r"bool\[([\d,]+)\] = name\[name=dropout\]", text)
    assert sorted(masks) == ["4,2,6,6", "4,6,16", "4,6,16", "4,6,16"]


ONE = jax.tree.map(lambda a: a[:1], PARAMS["blocks"])


def test_rotary_products_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 2, 8))
    turns = [rotary(jnp.array([position]), 8) for position in range(9)]
    products = [[np.asarray((turns[i](q) * turns[j](k)).sum(-1)) for j in (i, i + 3)] for i in (0, 5)]
    np.testing.assert_allclose(products[0], products[1], rtol=1e-4)
    assert np.abs(products[0][0] - products[0][1]).max() > 1e-2
    np.testing.assert_allclose(turns[0](q), q)
    angle = np.arctan2(*np.asarray(turns[1](jnp.eye(8)[0].reshape(1, 1, 1, 8))).ravel()[[4, 0]])
    np.testing.assert_allclose(angle, 1.0, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 63, 130, 200])
def test_attention_in_pieces_is_attention(length):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, length, 1, 2))
    whole = attention(q, k, v, jnp.tril(jnp.ones((length, length), bool)))
    np.testing.assert_allclose(causal_attention(q, k, v), whole, rtol=1e-4, atol=1e-5)


def test_both_memories_have_the_same_gradients():
    def loss(memory):
        network = gpt((6,), BINS, WIDTH, 1, 2, dropout=0.3, memory=memory)(BINS)
        return lambda params: (network.apply(params, X, None, jax.random.key(0)) ** 2).sum()

    one, other = jax.jit(lambda p: [jax.grad(loss(m))(p) for m in ("store", "remat")])(PARAMS | {"blocks": ONE})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_a_step_updates_its_cache_in_place():
    """The compiled loop copies no cache: the only writes of its size are those before the loop."""
    x, known = jnp.zeros((2, 40, 1), jnp.int32), jnp.zeros((2, 40), bool)
    network = gpt((40,), BINS, WIDTH, 1, 2)(BINS)
    params = network.init(jax.random.key(0), x)
    out = categorical(BINS)
    run = jax.jit(lambda p, key: draw_sites("cached", network, out.sample, p, key, x, known).sites)
    text = run.lower(params, jax.random.key(0)).compile().as_text()
    body = text[text.index("%while") if "%while" in text else 0 :]
    copies = re.findall(r"f32\[2,2,40,8\]\S* copy\(", body)
    assert len(copies) <= 2, copies
    assert "f32[2,2,40,8]" in text


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        network = gpt((6,), BINS, WIDTH, 1, 2, positions="rotary")(BINS)
        params = network.init(jax.random.key(0), X)
        assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float64")}
        assert jax.eval_shape(network.apply, params, X).dtype == jnp.float64
        cache = jax.eval_shape(lambda p: network.start(p, 4), params)
        assert jax.eval_shape(lambda p, c: network.step(p, c, X, 1), params, cache)[0].dtype == jnp.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "sinusoidal"}, "positions='sinusoidal': expected one of learned, rotary"),
        ({"memory": "invert"}, "memory='invert': expected one of store, remat"),
        ({"width": 6, "heads": 4}, "width=6 is not divisible by heads=4"),
        ({"width": 6, "heads": 2, "positions": "rotary"}, "must be even"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"layers": 0}, "layers=0"),
        ({"conditional": True}, "neither labels nor condition vectors"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(changes, message):
    spec = Spec("text", (8,), 3, symbols=("a", "b", "c"))
    with pytest.raises(UserError, match=message):
        build({"name": "gpt", "width": 4, "heads": 2, "layers": 1} | changes, spec)


def test_tied_weights_need_an_output_for_each_value():
    with pytest.raises(ValueError, match="tied=True needs as many outputs as values, not 10 for 7"):
        gpt((6,), BINS, WIDTH, 1, 2)(10)
