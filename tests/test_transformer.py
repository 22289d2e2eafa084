"""Transformers and the flows made of them: causality, the cache, inverses token by token, orders of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import check_close, perturbed

from genflow import bijectors as bj
from genflow.core import Spec
from genflow.models.transformer_flow import jet, tarflow
from genflow.networks import FiLM, transformer
from genflow.networks.transformer import attention, layer_norm

BATCH, TOKENS, CHANNELS = 2, 5, 2
AFFINE = bj.affine(bj.tanh_scale(3.0))
CAUSAL = transformer(8, 2, 2, causal=True)
BLOCK = bj.token_autoregressive(AFFINE, CAUSAL)


def draw(*shape, dtype=jnp.float64, seed=0):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


# The network


def test_film_scales_and_shifts_every_position_alike():
    h, cond = jnp.ones((2, 3, 4, 5)), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    params = FiLM().init(jax.random.key(0), h, cond)["params"]
    assert not np.asarray(params["scale"]["kernel"]).any()
    params["scale"]["bias"] += 1.0
    shift = (cond @ params["shift"]["kernel"])[:, None, None]
    check_close(FiLM().apply({"params": params}, h, cond), 2.0 + jnp.broadcast_to(shift, h.shape), 1e-6)
    assert FiLM().apply({"params": {}}, h, None) is h


def test_attention_averages_over_the_keys_that_a_query_may_see():
    with jax.enable_x64(True):
        q, k, v = draw(3, 1, 4, 2, 3)
        out = np.asarray(attention(q, k, v, jnp.tril(jnp.ones((4, 4), bool))))
        for i in range(4):
            weights = np.exp(np.einsum("nk,mnk->mn", q[0, i], k[0, : i + 1]) / np.sqrt(3))
            expected = np.einsum("mn,mnk->nk", weights / weights.sum(0), v[0, : i + 1])
            np.testing.assert_allclose(out[0, i], expected, rtol=1e-12)


def test_statistics_are_float32_where_values_are_bfloat16():
    q = jnp.array([16.0, 1.0], jnp.bfloat16).reshape(1, 1, 1, 2)
    k = jnp.array([[16.0, 0.0], [16.0, 0.5]], jnp.bfloat16).reshape(1, 2, 1, 2)  # scores 181.02 and 181.37
    out = attention(q, k, jnp.array([0.0, 1.0], jnp.bfloat16).reshape(1, 2, 1, 1))
    check_close(out.astype(jnp.float32), np.full(out.shape, 0.5875), 5e-3)
    h = (512 + 4 * jnp.arange(64.0)).astype(jnp.bfloat16)[None]
    params = {"scale": jnp.ones(64, jnp.bfloat16), "shift": jnp.zeros(64, jnp.bfloat16), "film": {}}
    exact = np.asarray(h, np.float32)
    check_close(layer_norm(params, h).astype(jnp.float32), (exact - exact.mean()) / exact.std(), 1e-2)


@pytest.mark.parametrize("cond_dims", [0, 3])
def test_a_step_gives_what_the_full_pass_gives_at_its_position(cond_dims):
    with jax.enable_x64(True):
        x, network = draw(BATCH, TOKENS, CHANNELS), CAUSAL(3)
        cond = draw(BATCH, cond_dims, seed=1) if cond_dims else None
        params = perturbed(network.init(jax.random.key(2), x, cond), 3, 0.3)
        step = jax.jit(network.step)
        cache, full = network.init_cache(params, BATCH), network.apply(params, x, cond)
        for i in range(TOKENS):
            out, cache = step(params, x[:, i], i, cache, cond)
            check_close(out, full[:, i], 1e-12)


def test_a_step_costs_one_token():
    network, x = transformer(32, 1, 4, causal=True)(4), jnp.zeros((1, 32, 4))
    params = network.init(jax.random.key(0), x)
    cache = network.init_cache(params, 1)
    full = jax.jit(network.apply).lower(params, x).compile().cost_analysis()["flops"]
    step = jax.jit(network.step).lower(params, x[:, 0], 0, cache).compile().cost_analysis()["flops"]
    assert step < 2 * full / 32


# The autoregressive block


@pytest.mark.parametrize("cond_dims", [0, 3])
def test_the_cached_inverse_is_the_naive_one(cond_dims):
    z = draw(BATCH, TOKENS, CHANNELS, dtype=jnp.float32)
    cond = draw(BATCH, cond_dims, dtype=jnp.float32, seed=1) if cond_dims else None
    params = perturbed(BLOCK.init(jax.random.key(2), z, cond)[0], 3, 0.3)

    @jax.jit
    def one_more_token(x):
        raw = CAUSAL(2 * CHANNELS).apply(params, x[:, :-1], cond)
        raw = jnp.concatenate([jnp.zeros_like(raw[:, :1]), raw], 1).reshape(*x.shape, 2)
        return AFFINE.inverse(raw, z)[0]

    naive = jnp.zeros_like(z)
    for _ in range(TOKENS):
        naive = one_more_token(naive)
    cached, log_det = jax.jit(BLOCK.inverse)(params, z, cond)
    check_close(cached, naive, 1e-5)
    check_close(log_det, -BLOCK.forward(params, naive, cond)[1], 1e-5)
    assert np.abs(np.asarray(naive - z)).max() > 0.1


def test_parameters_of_a_token_depend_on_the_tokens_before_it_only():
    with jax.enable_x64(True):
        x = draw(BATCH, TOKENS, CHANNELS)
        params = perturbed(BLOCK.init(jax.random.key(2), x)[0], 3, 0.3)
        jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: BLOCK.forward(params, x)[0]))(x))[0, :, :, 0]
        strength = np.abs(jacobian).sum((1, 3))
        np.testing.assert_array_equal(strength > 1e-9, np.tril(np.ones((TOKENS, TOKENS), bool)))
        own = jacobian[np.arange(TOKENS), :, np.arange(TOKENS)]
        np.testing.assert_array_equal(own, own * np.eye(CHANNELS))  # parameters do not depend on the token itself
        np.testing.assert_array_equal(own[0], np.eye(CHANNELS))


def test_samples_are_finite_for_wild_weights():
    stack = bj.repeat(bj.chain(block=BLOCK, flip=bj.flip(axis=1)), 4)
    z = draw(16, TOKENS, CHANNELS, dtype=jnp.float32)
    params, inverse = stack.init(jax.random.key(2), z)[0], jax.jit(stack.inverse)
    for scale in (0.3, 1.0, 100.0):
        x, log_det = inverse(perturbed(params, 3, scale), z)
        assert np.isfinite(np.asarray(x)).all()
        assert np.isfinite(np.asarray(log_det)).all()


# Orders of tokens


def test_patches_are_read_row_by_row():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    patches, _ = bj.patchify(2, 4, 4).forward({}, image)
    assert patches[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_halves_of_tokens_go_from_checkerboard_to_columns_to_rows_and_back():
    grid = jnp.arange(24.0).reshape(1, 24, 1)  # 4 rows of 6
    x, _ = bj.parity_order(4, 6).forward({}, grid)
    row, column = np.divmod(np.arange(24), 6)
    for parity in (row + column, column, row, row + column):
        passed = np.asarray(bj.halves(axis=1).split(x)[0]).ravel()
        np.testing.assert_array_equal(np.sort(passed), np.flatnonzero(parity % 2 == 0))
        x, _ = bj.rotate_parity().forward({}, x)


# The models


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda spec: tarflow(spec, patch=3), "patch=3 does not divide an image of 4x4"),
        (lambda spec: tarflow(spec, patch=4), "patch=4 makes one token"),
        (lambda spec: tarflow(spec, width=6, heads=4), "width=6 is not divisible by heads=4"),
        (lambda spec: tarflow(spec, blocks=0), "blocks=0 must be above zero"),
        (lambda spec: jet(spec, patch=4), "grid of 1x1 tokens"),
        (lambda spec: jet(spec, patch=1), "patch=1 leaves one channel"),
        (lambda spec: jet(spec._replace(shape=(4,)), patch=1), "models discrete images"),
    ],
)
def test_impossible_settings_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build(Spec("images", (4, 4, 1), 8))
