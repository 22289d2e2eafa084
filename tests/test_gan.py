"""Generative adversarial networks: the losses at their optima, penalties and normalizations, alternation, the film."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from test_models import DCGAN, GAN, GIVEN, IMAGES, LABELLED, POINTS, RESNET_GAN
from test_step import started

from genflow.analysis.game import density, interval
from genflow.data.densities import two_gaussians
from genflow.errors import UserError
from genflow.models import adversarial, build
from genflow.models.adversarial import LOSSES, draw_noise, gradient_penalty
from genflow.models.spectral import spectral_normalization
from genflow.networks import gan_discriminator, resnet_discriminator, resnet_generator
from genflow.networks.gan import MOMENTUM
from genflow.networks.gan_convs import strided_conv2d, transposed_conv2d
from genflow.report import game

# The losses


def fitted(loss, p, q):
    """The least loss of a discriminator that is a table, on a discrete set, and the table, by gradient descent."""
    counts = [np.round(a * 1000).astype(int) for a in (p, q)]

    def objective(table):
        return LOSSES[loss].discriminator(*(table[np.repeat(np.arange(len(p)), n)] for n in counts))

    def descend(i, table):
        return table - 2.0 * jax.grad(objective)(table)

    table = jax.jit(lambda t: jax.lax.fori_loop(0, 4_000, descend, t))(jnp.zeros(len(p)))
    return float(objective(table)), np.asarray(table)


P, Q = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("loss", ["minimax", "non_saturating"])
def test_the_best_discriminator_is_p_over_p_plus_q_and_its_value_is_the_divergence(loss):
    least, table = fitted(loss, P, Q)
    np.testing.assert_allclose(jax.nn.sigmoid(table), P / (P + Q), atol=2e-3)
    middle = (P + Q) / 2
    divergence = 0.5 * (P * np.log(P / middle)).sum() + 0.5 * (Q * np.log(Q / middle)).sum()
    np.testing.assert_allclose(-2 * least, -2 * np.log(2) + 2 * divergence, atol=1e-5)


def test_a_perceptron_comes_near_the_best_discriminator_of_two_gaussians():
    """p = N(1, 1) and q = N(-1, 1), of which log p / q = 2 x."""
    network, num = gan_discriminator((16,), 1, 0.0, 0.0, unit_range=False), 512
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 1)))
    rule = optax.adam(1e-2)

    def descend(i, carry):
        params, opt_state = carry
        real, fake = jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (2, num, 1))

        def objective(params):
            logits = network.apply(params, state, jnp.concatenate([real + 1, fake - 1]))[0]
            return LOSSES["minimax"].discriminator(logits[:num], logits[num:])

        updates, opt_state = rule.update(jax.grad(objective)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    params, _ = jax.jit(lambda c: jax.lax.fori_loop(0, 800, descend, c))((params, rule.init(params)))
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    says = jax.nn.sigmoid(network.apply(params, state, x[:, None])[0])
    np.testing.assert_allclose(says, jax.nn.sigmoid(2 * x), atol=0.06)


@pytest.mark.parametrize(
    ("loss", "of_discriminator", "of_generator"),
    [
        ("minimax", (np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))) / 2, -np.log1p(np.exp(0.5)) / 2),
        ("non_saturating", (np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))) / 2, np.log1p(np.exp(-0.5))),
        ("hinge", 0.0 + 1.5, -0.5),
        ("wasserstein", 0.5 - 2.0, -0.5),
    ],
)
def test_values_of_the_losses(loss, of_discriminator, of_generator):
    real, fake = jnp.full(3, 2.0), jnp.full(5, 0.5)
    np.testing.assert_allclose(LOSSES[loss].discriminator(real, fake), of_discriminator, rtol=1e-6)
    np.testing.assert_allclose(LOSSES[loss].generator(fake), of_generator, rtol=1e-6)


def test_hinge_means_over_examples_that_are_not_yet_beyond_the_margin():
    real, fake = jnp.array([2.0, 0.5]), jnp.array([-3.0, -0.25])
    np.testing.assert_allclose(LOSSES["hinge"].discriminator(real, fake), 0.5 / 2 + 0.75 / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_certain_discriminators_are_finite_with_finite_gradients(loss):
    certain = jnp.array([300.0, -300.0])
    of_discriminator = jax.value_and_grad(LOSSES[loss].discriminator, argnums=(0, 1))(certain, certain)
    of_generator = jax.value_and_grad(LOSSES[loss].generator)(certain)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((of_discriminator, of_generator)))


def test_the_saturating_generator_learns_nothing_from_a_certain_discriminator():
    slopes = {loss: jax.grad(LOSSES[loss].generator)(jnp.array([-20.0]))[0] for loss in LOSSES}
    assert abs(slopes["minimax"]) < 1e-8
    np.testing.assert_allclose(slopes["non_saturating"], -1.0, rtol=1e-6)


# The penalty and the normalization


def test_the_gradient_penalty_of_linear_critics_is_known():
    real, fake = jax.random.normal(jax.random.key(0), (2, 6, 3, 2))
    w = jax.random.normal(jax.random.key(1), (3, 2))

    def penalty(w):
        return gradient_penalty(lambda y: (y * w).sum((1, 2)) + 4.0, jax.random.key(2), real, fake)

    norm = jnp.linalg.norm(w)
    np.testing.assert_allclose(penalty(w), (norm - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(penalty(w / norm), 0.0, atol=1e-10)
    np.testing.assert_allclose(jax.grad(penalty)(w), 2 * (norm - 1) * w / norm, rtol=1e-4, atol=1e-6)
    assert np.isfinite(jax.grad(penalty)(jnp.zeros((3, 2)))).all()


def test_the_gradient_penalty_is_taken_between_the_two_of_a_pair():
    """The slope of |y|^2 / 2 is |y|: in [3, 5] between points at 3 and 5, and each pair has a place of its own."""
    real, fake = jnp.full((200, 1), 3.0), jnp.full((200, 1), 5.0)
    slopes = []

    def critic(y):
        jax.debug.callback(lambda y: slopes.extend(np.ravel(y)), y)
        return 0.5 * (y**2).sum(1)

    value = gradient_penalty(critic, jax.random.key(0), real, fake)
    jax.effects_barrier()
    assert min(slopes) >= 3
    assert max(slopes) <= 5
    assert len(set(np.round(slopes, 4))) > 150
    np.testing.assert_allclose(value, np.mean((np.array(slopes) - 1) ** 2), rtol=1e-5)
    np.testing.assert_allclose(value, 9.0 + 1 / 3, atol=0.4)  # the mean of (s - 1)^2, s ~ U[3, 5]


def matrices(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [np.reshape(a, (-1, a.shape[-1])) for path, a in leaves if path[-1].key in ("kernel", "embedding")]


def test_spectral_normalization_makes_every_largest_singular_value_one():
    network = resnet_discriminator(6, 1, 1)
    params, _ = network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 3)))
    normalization = spectral_normalization(iterations=1)

    @jax.jit
    def after(params):
        state = normalization.init(jax.random.key(1), params)
        return normalization.apply(
            params, jax.lax.fori_loop(0, 60, lambda i, s: normalization.apply(params, s)[1], state)
        )

    normalized, state = after(params)
    before = [np.linalg.svd(m)[1][0] for m in matrices(params)]
    assert len(before) == len(jax.tree.leaves(state)) == 7
    assert min(abs(s - 1) for s in before) > 0.01
    np.testing.assert_allclose([np.linalg.svd(m)[1][0] for m in matrices(normalized)], 1.0, rtol=1e-3)
    biases = [(a, b) for a, b in zip(*map(jax.tree.leaves, (params, normalized)), strict=True) if a.ndim == 1]
    assert biases
    assert all((a == b).all() for a, b in biases)


def test_the_gradient_of_spectral_normalization_is_that_of_the_singular_value():
    """Of f(W / sigma(W)) by finite differences; the vectors may be constants, as sigma is stationary in them."""
    w, direction = jax.random.normal(jax.random.key(0), (2, 5, 4))
    normalization = spectral_normalization(iterations=100)
    state = normalization.init(jax.random.key(1), {"kernel": w})

    def f(w):
        return (normalization.apply({"kernel": w}, state)[0]["kernel"] ** 3).sum()

    def exact(w):
        return ((w / np.linalg.svd(w)[1][0]) ** 3).sum()

    slope = (jax.jit(jax.grad(f))(w) * direction).sum()
    w, direction, step = np.asarray(w, np.float64), np.asarray(direction, np.float64), 1e-5
    difference = (exact(w + step * direction) - exact(w - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-3)


# Networks


def test_strided_convolutions_are_those_of_jax():
    x, kernel = jax.random.normal(jax.random.key(0), (2, 6, 4, 3)), jax.random.normal(jax.random.key(1), (5, 5, 3, 2))
    numbers = ("NHWC", "HWIO", "NHWC")
    ours = strided_conv2d(x, kernel)
    theirs = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((2, 2),) * 2, dimension_numbers=numbers)
    assert ours.shape == (2, 3, 2, 2)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    z = jax.random.normal(jax.random.key(2), ours.shape)
    back = transposed_conv2d(z, kernel.swapaxes(2, 3))
    np.testing.assert_allclose((back * x).sum(), (z * ours).sum(), rtol=1e-4)
    transpose = jax.vjp(lambda x: strided_conv2d(x, kernel), x)[1](z)[0]
    np.testing.assert_allclose(back, transpose, atol=1e-4)


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_a_projection_discriminator_adds_the_inner_product_of_its_features_and_the_label(pooling):
    """The last layer w sees the features h too, so that unit vectors in its place read them off."""
    network, x = resnet_discriminator(3, 1, 0, pooling), jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    params, state = network.init(jax.random.key(1), x, jnp.zeros((5, 4)))

    @jax.jit
    def logits(params, c):
        return network.apply(params, state, x, c)[0]

    def of_feature(i):
        last = jnp.zeros((3, 1)).at[i].set(1.0)
        return logits(params | {"Dense_0": {"kernel": last}}, jnp.zeros((5, 4)))

    h = jnp.stack([of_feature(i) for i in range(3)], 1)
    label = np.array([0, 1, 2, 3, 1])
    expected = h @ params["Dense_0"]["kernel"][:, 0] + (h * params["embedding"][label]).sum(1)
    np.testing.assert_allclose(logits(params, jax.nn.one_hot(label, 4)), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).min() > 1e-3


def test_sum_pooling_is_mean_pooling_times_the_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    total, mean = (resnet_discriminator(3, 1, 0, pooling) for pooling in ("sum", "mean"))
    params, state = total.init(jax.random.key(1), x)
    np.testing.assert_allclose(total.apply(params, state, x)[0], 4 * mean.apply(params, state, x)[0], rtol=1e-5)


def test_batch_statistics_are_used_in_training_and_running_averages_afterwards():
    network = resnet_generator((4, 4, 1), 3, 1)
    z = 3.0 + jax.random.normal(jax.random.key(0), (8, 5))
    params, fresh = network.init(jax.random.key(1), z)
    run = jax.jit(network.apply, static_argnames="training")
    trained, state = run(params, fresh, z, training=True)
    first = np.asarray(z @ params["Dense_0"]["kernel"]).reshape(-1, 3)  # what the first normalization sees
    kept = state["Up_0"]["BatchNorm_0"]["BatchNorm_0"]
    np.testing.assert_allclose(kept["mean"], (1 - MOMENTUM) * first.mean(0), rtol=1e-4)
    np.testing.assert_allclose(kept["var"], MOMENTUM + (1 - MOMENTUM) * first.var(0), rtol=1e-4)
    alone, unchanged = run(params, state, z[:1])
    np.testing.assert_allclose(alone, run(params, state, z)[0][:1], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state, unchanged)
    assert np.abs(np.asarray(run(params, state, z[:4], training=True)[0] - trained[:4])).max() > 1e-3
    settled, _ = jax.lax.fori_loop(0, 150, lambda i, s: (run(params, s[0], z, training=True)[1], 0), (state, 0))
    np.testing.assert_allclose(run(params, settled, z)[0], trained, atol=1e-4)


# The model


@functools.cache
def made(name):
    """(model, batch, params, state after a step of each player) of small models."""
    section, spec = {
        "dcgan": (DCGAN | {"levels": 2}, LABELLED),
        "sngan": (RESNET_GAN | GIVEN | {"generator_batch": 3}, LABELLED),
        "gan": (GAN | {"pieces": 2}, IMAGES),
    }[name]
    model = build(section, spec)
    x = jax.random.randint(jax.random.key(0), (8, *spec.shape), 0, spec.bins).astype(jnp.uint8)
    batch = {"x": x} | ({"label": jnp.arange(8) % 3} if spec.num_classes else {})
    params, state = jax.jit(model.init)(jax.random.key(1), batch)
    for loss in model.losses.values():
        _, (state, _) = jax.jit(loss)(params, state, jax.random.key(2), batch)
    return model, batch, params, state


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_a_sample_and_a_judgement_do_not_depend_on_the_others_of_a_batch(name):
    model, batch, params, state = made(name)
    given = {"label": jnp.zeros(8, jnp.int32)}

    @functools.partial(jax.jit, static_argnums=1)
    def both(params, num):
        few = {k: a[:num] for k, a in given.items()}
        drawn = model.sample(params, state, jax.random.key(0), num, few)
        return drawn, model.discriminate(params, state, batch["x"][:num], few)

    (all_drawn, all_judged), (drawn, judged) = both(params, 8), both(params, 3)
    np.testing.assert_allclose(drawn, all_drawn[:3], atol=1.0)  # a level, where rounding may fall either way
    assert (drawn == all_drawn[:3]).mean() > 0.95
    assert len(np.unique(np.reshape(all_drawn, (8, -1)), axis=0)) > 1
    np.testing.assert_allclose(judged, all_judged[:3], rtol=1e-4, atol=1e-5)


def test_the_discriminator_sees_the_label_and_has_a_slope_in_data_space():
    model, batch, params, state = made("sngan")
    x = batch["x"].astype(jnp.float32)

    @jax.jit
    def judged(x, label):
        return model.discriminate(params, state, x, {"label": label})

    label = batch["label"]
    one, other = judged(x, label), judged(x, (label + 1) % 3)
    assert (np.abs(np.asarray(one - other)) > 1e-5).all()
    direction = jax.random.normal(jax.random.key(0), x.shape)
    slope = (jax.jit(jax.grad(lambda x: judged(x, label).sum()))(x) * direction).sum()
    step = 0.002
    difference = (judged(x + step * direction, label) - judged(x - step * direction, label)).sum() / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=0.02)
    with pytest.raises(ValueError, match="needs label"):
        model.discriminate(params, state, x)


def test_players_move_in_turn_and_the_generator_on_every_third_step_alone():
    model, batch, *_ = made("sngan")
    step, first = started(model, {"groups": {"generator": {"every": 3}}}, batch=batch)
    states = [first]
    for _ in range(3):
        states.append(step(states[-1], batch)[0])

    def moved(i, pick):
        pairs = zip(jax.tree.leaves(pick(states[i])), jax.tree.leaves(pick(states[i + 1])), strict=True)
        return [bool((a != b).any()) for a, b in pairs]

    for pick in (lambda s: s.params["generator"], lambda s: s.state["generator"]):
        assert [any(moved(i, pick)) for i in (0, 1)] == [False, False]
        assert all(moved(2, pick))
    for i in range(3):
        assert all(moved(i, lambda s: s.params["discriminator"]))
        assert any(moved(i, lambda s: s.state["spectral"]))


def test_samples_are_constants_of_the_discriminator_s_loss():
    model, batch, params, state = made("gan")

    @jax.jit
    def gradients(params):
        return jax.grad(lambda p: model.losses["discriminator"](p, state, jax.random.key(0), batch)[0])(params)

    found = gradients(params)
    assert all(np.asarray(g).any() for g in jax.tree.leaves(found["discriminator"]))
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(found["generator"]))


def test_what_a_normalizing_discriminator_says_of_data_does_not_depend_on_the_samples():
    model, batch, params, state = made("dcgan")
    others = jax.tree.map(lambda a: a + 0.3, params["generator"])
    judged = jax.jit(
        lambda generator: model.losses["discriminator"](params | generator, state, jax.random.key(0), batch)
    )
    one, other = (judged({"generator": generator})[1][1] for generator in (params["generator"], others))
    np.testing.assert_allclose(one["real"], other["real"], rtol=1e-5)
    assert one["fake"] != other["fake"]


def test_the_generator_s_batch_is_a_multiple_of_the_data_s(monkeypatch):
    model, batch, params, state = made("sngan")
    sizes = []
    monkeypatch.setattr(
        adversarial, "draw_noise", lambda prior, key, num, dims: sizes.append(num) or jnp.ones((num, dims))
    )
    for loss in model.losses.values():
        jax.eval_shape(lambda *given, loss=loss: loss(*given), params, state, jax.random.key(0), batch)
    assert sizes == [8, 24]


def test_the_generator_starts_at_the_means_of_the_data():
    model, spec = build(GAN | {"widths": (4,)}, IMAGES), IMAGES
    x = jnp.tile(jnp.arange(16).reshape(1, 4, 4, 1) % 7, (64, 1, 1, 1)).astype(jnp.uint8)
    params, state = model.init(jax.random.key(0), {"x": x})
    quiet = jax.tree.map(lambda a: 0.0 * a if a.ndim == 2 else a, params["generator"])
    drawn = model.sample(params | {"generator": quiet}, state, jax.random.key(0), 2)
    assert drawn.shape == (2, *spec.shape)
    np.testing.assert_array_equal(drawn, x[:2])


def test_real_integers_are_spread_over_a_level_only_if_asked():
    """A discriminator of one ReLU layer without dropout: without noise its loss does not follow the key but by G."""
    losses = {}
    for dequantize in (False, True):
        model = build(GAN | {"pieces": 1, "dropout_input": 0.0, "dequantize": dequantize}, IMAGES)
        batch = {"x": jnp.full((8, 4, 4, 1), 3, jnp.uint8)}
        params, state = jax.jit(model.init)(jax.random.key(0), batch)
        loss = jax.jit(model.losses["discriminator"])
        losses[dequantize] = [loss(params, state, jax.random.key(i), batch)[1][1]["real"] for i in range(2)]
    assert losses[False][0] == losses[False][1] != losses[True][0] != losses[True][1]


def test_noise_has_variance_one_and_uniform_noise_is_bounded():
    for prior in ("normal", "uniform"):
        z = np.asarray(draw_noise(prior, jax.random.key(0), 20_000, 2))
        np.testing.assert_allclose((z.mean(), z.var()), (0, 1), atol=0.02)
        assert (np.abs(z).max() <= 3**0.5) == (prior == "uniform")


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        (
            GAN | {"loss": "least_squares"},
            IMAGES,
            "loss='least_squares': expected one of minimax, non_saturating, hinge",
        ),
        (GAN | {"loss": "wasserstein"}, POINTS, "needs gradient_penalty above zero or spectral_normalization=True"),
        (GAN | {"prior": "cauchy"}, POINTS, "prior='cauchy': expected one of normal, uniform"),
        (GAN | {"widths": (8, 0)}, POINTS, r"widths=\(8, 0\)"),
        (GAN | {"noise_dims": 0}, POINTS, "noise_dims=0"),
        (GAN | {"dropout": 1.0}, POINTS, "dropout=1.0 must be at least 0 and below 1"),
        (GAN | GIVEN, POINTS, "conditional=True, but points has neither labels nor condition vectors"),
        (DCGAN, POINTS, "models images of integers"),
        (DCGAN | {"levels": 3}, IMAGES, "levels=3: 4 and 4 pixels must be multiples"),
        (DCGAN | {"width": 0}, IMAGES, "width=0"),
        (DCGAN | {"loss": "wasserstein"}, IMAGES, "takes minimax, non_saturating or hinge"),
        (RESNET_GAN | {"downsamplings": 0}, IMAGES, "downsamplings=0"),
        (RESNET_GAN | {"pooling": "max"}, IMAGES, "pooling='max': expected one of sum, mean"),
        (RESNET_GAN | {"generator_batch": 0}, IMAGES, "generator_batch=0"),
        (RESNET_GAN | {"discriminator_width": 0}, IMAGES, "discriminator_width=0"),
        (RESNET_GAN | {"batch_norm": False} | GIVEN, LABELLED, "conditional=True needs batch_norm=True"),
    ],
)
def test_a_section_that_does_not_fit_is_refused_by_name(section, spec, message):
    with pytest.raises(UserError, match=message):
        build(section, spec)


# The film


def scene(step=7, **changes):
    x = np.linspace(-4, 4, 81)
    p, q = (np.exp(two_gaussians().log_prob(x[:, None] - shift)) for shift in (0.0, 1.0))
    return game.Scene(step, x, p, q, np.log(p / q))._replace(**changes)


def test_the_best_discriminator_is_drawn_where_there_is_anything_to_tell():
    given = scene()
    best = game.optimum(given)
    known = np.isfinite(best)
    assert 0 < known.sum() < len(best)
    np.testing.assert_allclose(best[known], (given.data / (given.data + given.samples))[known])
    bottom = game.frame(given).axes[1]
    drawn = {line.get_label(): line.get_ydata() for line in bottom.lines}
    np.testing.assert_allclose(drawn["discriminator, D(x)"][known], drawn["best, p / (p + q)"][known], atol=1e-6)


def test_frames_have_the_same_axes_and_say_what_they_show():
    frames = [game.frame(scene(step, samples=size * scene().samples)) for step, size in ((1, 1.0), (1_000, 9.0))]
    assert frames[0].axes[0].get_ylim() == frames[1].axes[0].get_ylim()
    assert "step 1,000" in frames[1].axes[0].get_title(loc="right")
    labels = [text.get_text() for a in frames[0].axes for text in a.get_legend().get_texts()]
    assert labels == ["data, p(x)", "generator, q(x)", "best, p / (p + q)", "discriminator, D(x)"]
    assert len(game.frame(scene(discriminator=None)).axes) == 1
    shown = game.picture(scene(broken=3), b"film")
    assert list(shown.rows) == ["step 7", "training"]
    assert "data:image/gif;base64,ZmlsbQ==" in shown.rows["training"]
    assert "3" in shown.note
    assert not game.picture(scene(), b"").note
    critic = game.frame(scene(is_logit=False)).axes[1]
    assert [text.get_text() for text in critic.get_legend().get_texts()] == ["critic, less its mean"]


def test_the_film_has_every_frame_in_order(tmp_path):
    paths = []
    for i, step in enumerate((5, 40, 300)):
        paths.append(tmp_path / f"{i}.png")
        game.save_frame(game.frame(scene(step, samples=(1 + i) * scene().samples)), paths[-1])
    game.save_animation(paths, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.format, film.n_frames, film.info["loop"]) == ("GIF", 3, 0)
        for i, path in enumerate(paths):
            film.seek(i)
            with Image.open(path) as frame:
                near = np.abs(np.asarray(film.convert("RGB"), int) - np.asarray(frame.convert("RGB"), int)).mean()
                assert near < 1.5, (i, near)


def test_a_density_of_samples_is_that_of_a_density():
    chosen = two_gaussians()
    drawn = chosen.sample(np.random.default_rng(0), 50_000)[:, 0]
    edges = interval(drawn)
    assert edges[0] < drawn.min() < drawn.max() < edges[-1]
    x = (edges[1:] + edges[:-1]) / 2
    exact = np.exp(chosen.log_prob(x[:, None]))
    np.testing.assert_allclose(density(drawn, edges), exact, atol=0.02)
    half = np.where(np.arange(len(drawn)) % 2, drawn, 1e9)
    np.testing.assert_allclose(density(half, edges), exact / 2, atol=0.02)
    assert np.isfinite(density(np.full(5, np.nan), edges)).all()
