"""One table for every causal network: what an output sees, its steps, and four samplers that agree."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow import networks
from genflow.core import CausalNetwork
from genflow.distributions import categorical
from genflow.samplers import METHODS, draw_sites


class Row(NamedTuple):
    """A network with bins * C outputs on sites [B, L, C] of values 0 .. bins - 1; sites = (L, C)."""

    network: CausalNetwork
    sites: tuple[int, int]
    bins: int = 4
    cond_dims: int = 0
    sees: int = 0  # how many sites before its own the last output depends on; 0: all


# A new causal network adds a row.
TABLE = {
    "gpt": Row(networks.gpt((6,), 4, 4, 2, 2)(4), (6, 1)),
    "gpt, rotary, conditional": Row(
        networks.gpt((5,), 4, 4, 1, 2, positions="rotary", tied=False)(4), (5, 1), cond_dims=3
    ),
    "gpt, grid": Row(networks.gpt((2, 1, 3), 4, 4, 1, 1, memory="remat")(4), (6, 1)),
    "masked_perceptron": Row(networks.masked_perceptron((9, 7), 4)(4), (7, 1)),
    "masked_perceptron, conditional": Row(networks.masked_perceptron((9,), 4, direct=False)(4), (5, 1), cond_dims=3),
    "pixelrnn, row": Row(networks.pixelrnn((2, 3, 3), 4, "row", 6, 2)(4), (18, 1)),
    "pixelrnn, row, conditional": Row(networks.pixelrnn((4, 4, 1), 4, "row", 8, 1)(4), (16, 1), cond_dims=3),
    "pixelrnn, diagonal": Row(networks.pixelrnn((3, 2, 3), 4, "diagonal", 6, 2)(4), (18, 1)),
    "pixelrnn, diagonal, conditional": Row(networks.pixelrnn((4, 4, 1), 4, "diagonal", 8, 1)(4), (16, 1), cond_dims=3),
    "markov_mlp": Row(networks.markov_mlp(3, (8,), 4)(4), (9, 1), sees=3),
    "markov_mlp, conditional": Row(networks.markov_mlp(2, (8,), 4)(4), (5, 1), cond_dims=3, sees=2),
    "gated_pixelcnn": Row(networks.gated_pixelcnn(2, 1, 4, 4, 1, 4)(4), (14, 1), sees=9),
    "gated_pixelcnn, conditional": Row(networks.gated_pixelcnn(2, 2, 4, 4, 1, 8)(4), (8, 1), cond_dims=3),
    "pixelcnn": Row(networks.pixelcnn(2, 1, 4, 4, 1, 8)(4), (14, 1), sees=9),
    "pixelcnn, conditional": Row(networks.pixelcnn(2, 2, 4, 4, 1, 8)(4), (8, 1), cond_dims=3),
    "pixelcnnpp": Row(networks.pixelcnnpp(4, 2, 1, 4, 4)(4), (16, 1)),
    "pixelcnnpp, conditional": Row(networks.pixelcnnpp(4, 1, 1, 4, 2)(8), (6, 2), cond_dims=3),
    "wavenet": Row(networks.wavenet((1, 2), 4, 4, 4)(4), (7, 1), sees=5),
    "wavenet, conditional": Row(networks.wavenet((1, 2), 4, 4, 4)(4), (7, 1), cond_dims=3, sees=5),
}


@functools.cache
def made(name, num=2):
    """(row, perturbed parameters, sites, cond)."""
    row = TABLE[name]
    x = jax.random.randint(jax.random.key(0), (num, *row.sites), 0, row.bins)
    cond = jax.random.normal(jax.random.key(1), (num, row.cond_dims)) if row.cond_dims else None
    params = jax.jit(row.network.init)(jax.random.key(2), x, cond)
    # with this seed no path of a network of four channels dies in its rectifiers: all that may depend does
    return row, perturbed(params, 26, 0.5), x, cond


def draw(row):
    """Draws each value of a site from a softmax on its share of raw."""

    def sites(key, raw):
        logits = 3 * raw.reshape(*raw.shape[:-1], row.sites[1], row.bins)
        return categorical(row.bins).sample(key, logits)[..., 0]

    return sites


@functools.cache
def evaluated(name):
    """What the properties need, compiled once: outputs, their change under changes of x and cond, steps."""
    row, params, x, cond = made(name)
    L = row.sites[0]
    one = np.asarray(x[:1])
    changes = [one + k * (np.arange(L) == j)[:, None] for j in range(L) for k in range(1, min(row.bins, 4))]
    rows = (np.concatenate(changes) % row.bins).astype(x.dtype)

    @jax.jit
    def everything(params, x, cond, rows):
        raw = row.network.apply(params, x, cond)

        def one_step(cache, i):
            raw, cache = row.network.step(params, cache, x, i, cond)
            return cache, raw

        steps = jax.lax.scan(one_step, row.network.start(params, x.shape[0], cond), jnp.arange(L))[1]
        same = None if cond is None else cond[:1]
        moved = row.network.apply(params, rows, None if same is None else jnp.repeat(same, len(rows), 0)) - raw[:1]
        other = None if cond is None else row.network.apply(params, x, cond + 1) - raw
        return raw, steps.swapaxes(0, 1), moved, other

    raw, steps, moved, other = everything(params, x, cond, rows)
    sees = np.abs(np.asarray(moved)).reshape(L, -1, L, raw.shape[-1]).max((1, 3)).T  # [output, input]
    return np.asarray(raw), np.asarray(steps), sees, other


@pytest.mark.parametrize("name", TABLE)
def test_an_output_depends_on_the_sites_before_it_alone(name):
    """The Jacobian of differences, d raw_i / d x_j: zero on and above the diagonal, nothing missing below it."""
    row, sees = made(name)[0], evaluated(name)[2] > 1e-5
    assert not np.triu(sees).any()
    last = sees[-1, :-1]
    wanted = row.sees or len(last)
    assert last[-wanted:].all()
    assert not last[:-wanted].any()
    if row.network.receptive_field:
        furthest = max(i - j for i, j in zip(*sees.nonzero(), strict=True))
        assert furthest == min(row.network.receptive_field, len(sees) - 1)


@pytest.mark.parametrize("name", TABLE)
def test_steps_give_what_the_whole_evaluation_gives(name):
    raw, steps, *_ = evaluated(name)
    assert raw.std() > 1e-2
    np.testing.assert_allclose(steps, raw, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.cond_dims])
def test_the_condition_reaches_every_site(name):
    other = evaluated(name)[3]
    assert (np.abs(np.asarray(other)).max(-1) > 1e-5).all()


@pytest.mark.parametrize("name", TABLE)
def test_all_samplers_draw_the_same_sites_and_keep_what_is_known(name):
    row, params, x, cond = made(name)
    methods = [method for method in METHODS if method != "windowed" or row.network.window]
    known = jax.random.bernoulli(jax.random.key(4), 0.3, x.shape[:2])

    @jax.jit
    def all_methods(params, x, cond):
        key = jax.random.key(5)
        return {m: draw_sites(m, row.network, draw(row), params, key, x, known, cond) for m in methods}

    drawn = all_methods(params, x, cond)
    naive = np.asarray(drawn["naive"].sites)
    assert (naive[np.asarray(known)] == np.asarray(x)[np.asarray(known)]).all()
    assert (naive != np.asarray(x)).any()
    for method, (sites, rounds) in drawn.items():
        np.testing.assert_array_equal(sites, naive, err_msg=method)
        assert 1 <= int(rounds) <= row.sites[0] + 1


def test_drawing_can_end_early():
    row, params, x, _ = made("markov_mlp")
    known = jnp.zeros(x.shape[:2], bool)
    key = jax.random.key(5)
    whole = draw_sites("naive", row.network, draw(row), params, key, x, known).sites
    wanted = np.concatenate([whole[:, :4], x[:, 4:]], axis=1)
    for method in METHODS:
        drawn = draw_sites(method, row.network, draw(row), params, key, x, known, num_sites=4).sites
        np.testing.assert_array_equal(drawn, wanted, err_msg=method)


def test_a_window_that_is_too_small_is_noticed():
    """The windowed sampler agrees because the window is right, not because windows do not matter."""
    row, params, x, _ = made("markov_mlp")
    narrow = row.network._replace(window=(2, 1))
    known = jnp.zeros(x.shape[:2], bool)
    x, known = jnp.tile(x, (8, 1, 1)), jnp.tile(known, (8, 1))
    drawn = [
        draw_sites(method, network, draw(row), params, jax.random.key(5), x, known)
        for method, network in (("naive", row.network), ("windowed", narrow))
    ]
    assert (np.asarray(drawn[0].sites) != np.asarray(drawn[1].sites)).any()
