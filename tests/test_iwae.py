"""Importance weighted and ladder autoencoders, what they use of their latents, and the optimizer of the protocol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import BINARY, IWAE, LADDER, made

from configs import iwae_mnist
from genflow.analysis import latents
from genflow.core import Inference, Latent, Model
from genflow.data.dataset import in_memory
from genflow.errors import UserError
from genflow.models import build
from genflow.models.ladder import merge
from genflow.models.latent import Gaussian
from genflow.optimizers import group_optimizer

KEYS = 3000


def gradients(gradient):
    """The gradient of a two-level bound of three draws, one image, for many keys: {path: [KEYS, ...]}."""
    model = build(IWAE | {"samples": 3, "gradient": gradient}, BINARY)
    _, _, params, state, batch = made("iwae")
    one = {"x": batch["x"][:1]}

    def loss(params, key):
        return model.losses["model"](params, state, key, one)[0]

    keys = jax.random.split(jax.random.key(7), KEYS)
    found = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, keys)["model"]["levels"]
    leaves = jax.tree_util.tree_leaves_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(leaf, np.float64).reshape(KEYS, -1) for path, leaf in leaves}


def test_both_gradients_of_two_levels_have_one_mean_and_the_doubly_reparameterized_has_less_variance_in_q():
    plain, doubly = gradients("reparameterized"), gradients("doubly_reparameterized")
    assert plain.keys() == doubly.keys()
    variances = np.zeros(2)
    for path, a in plain.items():
        b = doubly[path]
        error = np.sqrt((a.var(0) + b.var(0)) / KEYS)
        assert (np.abs(a.mean(0) - b.mean(0)) <= 5 * error + 1e-6).all(), path
        if "inference" in path:
            variances += b.var(0).sum(), a.var(0).sum()
    assert 0 < variances[0] < 0.8 * variances[1]


def test_levels_from_the_prior_come_after_all_have_been_inferred():
    """Bottom-up, q of the far level is the one that q of the near level gave: its draw, or its mode where p draws."""
    model, _, params, state, batch = made("iwae")
    z = model.latent.infer(params, state, jax.random.key(3), batch).z
    near_cold = model.latent.infer(params, state, jax.random.key(3), batch, True, jnp.array([1.0, 0.0])).z
    near_from_p = model.latent.infer(params, state, jax.random.key(3), batch, jnp.array([True, False])).z
    far_from_p = model.latent.infer(params, state, jax.random.key(3), batch, jnp.array([False, True])).z
    np.testing.assert_array_equal(near_cold[0], near_from_p[0])
    np.testing.assert_array_equal(z[1], far_from_p[1])
    assert (np.asarray(z[1]) != np.asarray(near_from_p[1])).any()
    assert (np.asarray(z[0]) != np.asarray(far_from_p[0])).any()


def test_the_output_starts_at_the_pixel_means_of_the_first_batch():
    model = build(IWAE, BINARY)
    x = np.zeros((8, 4, 4, 1), np.uint8)
    x[:2, 1], x[:, 2] = 1, 1
    params, _ = model.init(jax.random.key(0), {"x": x})
    bias = params["model"]["levels"]["generation"]["decoder"]["heads"]["Dense_0"]["bias"].reshape(4, 4)
    np.testing.assert_allclose(jax.nn.sigmoid(bias)[:, 0], [0.001, 0.25, 0.999, 0.001], rtol=1e-3)


def test_merged_precisions_are_those_of_the_product_of_two_gaussians():
    z = np.linspace(-12, 12, 20_001)
    for one, other in (((0.3, -0.7), (-1.1, 0.4)), ((2.0, 0.0), (1.0, -3.0))):
        log_product = -0.5 * sum(((z - m) / np.exp(s)) ** 2 for m, s in (one, other))
        mass = np.exp(log_product - log_product.max())
        mean = (mass * z).sum() / mass.sum()
        std = np.sqrt((mass * (z - mean) ** 2).sum() / mass.sum())
        merged = merge(Gaussian(*map(jnp.float32, one)), Gaussian(*map(jnp.float32, other)))
        np.testing.assert_allclose([merged.mean, np.exp(merged.log_std)], [mean, std], rtol=1e-4)
    sure = merge(Gaussian(jnp.float32(1), jnp.float32(-40)), Gaussian(jnp.float32(0), jnp.float32(7)))
    np.testing.assert_allclose(sure, (1.0, -40.0))  # neither precision is ever formed


def follower(copies):
    """x [B, 3] is seen by units (x_0, 0, x_2 / 20) of level 1 and by unit x_2 of every copy at the next levels."""

    def infer(params, state, key, batch, from_posterior=True, temperature=1.0):
        x = batch["x"]
        means = (x * jnp.array([1.0, 0.0, 0.05]), *(x[:, 2:],) * copies)
        z = jax.tree.map(lambda a: a + temperature * jax.random.normal(key, a.shape), means)
        kl = temperature * jnp.stack([x[:, 0] ** 2, *(0.0 * x[:, 0],) * copies])
        return Inference(z, *(jnp.zeros(len(x)),) * 3, kl)

    latent = Latent(1 + copies, infer, *(None,) * 3)
    return Model(None, {}, latent=latent)


def figures(copies):
    x = np.random.default_rng(0).normal(3.0, 1.0, (50, 3)).astype(np.float32)
    found = latents.diagnostics(follower(copies), {}, {}, jax.random.key(0), in_memory(x), 16, 42)
    return x[:42].astype(np.float64), found


def test_a_dead_unit_is_not_active_and_the_last_batch_counts_once():
    x, found = figures(1)
    assert {name: value for name, (value, error) in found.items() if not error} == {
        "units": 4.0,
        "active units": 2.0,
        "active units, level 1": 1.0,
        "active units, level 2": 1.0,
        "KL, nats, level 2": 0.0,
    }
    kl = x[:, 0] ** 2
    for name in ("KL, nats", "KL, nats, level 1"):
        np.testing.assert_allclose(found[name], (kl.mean(), kl.std(ddof=1) / np.sqrt(42)), rtol=1e-5)
    used = latents.usage(follower(1), {}, {}, jax.random.key(0), in_memory(x.astype(np.float32)), 16)
    np.testing.assert_allclose(used.variances[0], [x[:, 0].var(), 0, x[:, 2].var() / 400], rtol=1e-5)
    np.testing.assert_allclose(used.variances[1], [x[:, 2].var()], rtol=1e-5)


def test_many_levels_are_summarized():
    assert list(figures(0)[1]) == ["units", "active units", "KL, nats"]
    few, many = figures(4)[1], figures(5)[1]
    assert len(few) == latents.MOST_FIGURES
    assert "KL, nats, level 5" in few
    assert {name: value for name, (value, _) in many.items() if "level" in name} == {
        "levels": 6.0,
        "levels with a KL above 0.01 nats": 1.0,
    }


def official(grads_of_sum, rates):
    """The authors' rule as it is written: second moments from 1, epsilon beside the square root, gradients summed."""
    params, m, v = 0.0, 0.0, 1.0
    for t, (g, rate) in enumerate(zip(grads_of_sum, rates, strict=True), 1):
        m, v = 0.99 * m + 0.01 * g, 0.999 * v + 0.001 * g**2
        params -= rate * np.sqrt(1 - 0.999**t) / (1 - 0.99**t) * m / (np.sqrt(v) + 1e-4)
    return params


def test_the_protocol_is_the_official_optimizer_with_gradients_summed():
    config = iwae_mnist.get_config()
    options = dict(config.optimizer) | {"milestones": ((40, 0.72), (120, 0.52))}
    rule, num, params = group_optimizer(options, 200), config.data.batch_size, jnp.zeros(3)
    means = np.random.default_rng(1).normal(0.3, 1.0, (200, 3)) * [1e-4, 1.0, 30.0]
    state = rule.init(params)
    update = jax.jit(rule.update)
    for g in means.astype(np.float32):
        change, state = update(jnp.asarray(g), state, params)
        params += change
    rates = [1e-3 * (1.0 if t < 40 else 0.72 if t < 120 else 0.52) for t in range(200)]
    wanted = [official(num * column, rates) for column in means.T]
    np.testing.assert_allclose(params, wanted, rtol=2e-3)


def test_milestones_are_the_stages_of_the_protocol():
    config = iwae_mnist.get_config()
    rate = group_optimizer(dict(config.optimizer), config.train.num_steps).schedule
    ends = np.cumsum([3**i * 59_600 // 20 for i in range(8)])
    assert ends[-1] == config.train.num_steps
    for i, (first, end) in enumerate(zip((0, *ends), ends, strict=False)):
        wanted = 1e-4 * round(10 ** (1 - i / 7), 1)
        np.testing.assert_allclose([rate(first), rate(end - 1)], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"milestones": ((40, 0.5), (-1, 0.1))}, "steps must not be negative"),
        *(({"name": name}, f"{name} has no average of squares; set it to 0") for name in ("adamax", "sgd", "lion")),
    ],
)
def test_an_optimizer_that_would_not_do_what_it_says_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        group_optimizer(dict(iwae_mnist.get_config().optimizer) | options, 200)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (IWAE | {"latents": ()}, "every level needs a size and a tuple of widths"),
        (IWAE | {"widths": ((8,),)}, "every level needs a size"),
        (IWAE | {"widths": ((8,), ())}, "every level needs a size"),
        (LADDER | {"widths": ((8,), (0,))}, "must be above zero"),
        (LADDER | {"samples": 2, "kl_warmup": 10}, "need beta=1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(section, message):
    with pytest.raises(UserError, match=message):
        build(section, BINARY)
