"""The game of a generator and a discriminator: what each minimizes, and the model that their networks make."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Key, Model, Params, Spec, sum_event
from genflow.dequantize import centered
from genflow.models.flow import conditioning, draw_condition
from genflow.models.spectral import Normalization, spectral_normalization
from genflow.networks import StatefulNetwork
from genflow.rows import cut_rows

PRIORS = ("normal", "uniform")
Logits = Float[Array, " B"]


def cross_entropy(real: Logits, fake: Logits) -> Float[Array, ""]:
    """-1/2 E log D(x) - 1/2 E log(1 - D(G(z))), nats, with D = sigmoid(logit): least at D = p / (p + q).

    There it is log 2 - JS(p, q).

    Reference: Goodfellow et al. (2014), Generative adversarial nets, arXiv:1406.2661, equation 1, halved.
    """
    return 0.5 * (jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())


def hinge(real: Logits, fake: Logits) -> Float[Array, ""]:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), of unbounded D.

    Reference: Lim and Ye (2017), Geometric GAN, arXiv:1705.02894; Miyato et al. (2018), arXiv:1802.05957, equation 16.
    """
    return jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean()


def wasserstein(real: Logits, fake: Logits) -> Float[Array, ""]:
    """E D(G(z)) - E D(x): minus the Wasserstein distance at its least over critics of slope at most one.

    Reference: Arjovsky et al. (2017), Wasserstein GAN, arXiv:1701.07875, equation 2.
    """
    return fake.mean() - real.mean()


class Game(NamedTuple):
    """What the players minimize: discriminator(real [B], fake [b]) -> [] and generator(fake [b]) -> [].

    Of logits, or a critic's values, of data and of samples. A term that its player cannot change is left out.
    """

    discriminator: Callable[[Logits, Logits], Float[Array, ""]]
    generator: Callable[[Logits], Float[Array, ""]]


LOSSES = {
    "minimax": Game(cross_entropy, lambda fake: -0.5 * jax.nn.softplus(fake).mean()),
    "non_saturating": Game(cross_entropy, lambda fake: jax.nn.softplus(-fake).mean()),  # -E log D(G(z))
    "hinge": Game(hinge, lambda fake: -fake.mean()),
    "wasserstein": Game(wasserstein, lambda fake: -fake.mean()),
}


def gradient_penalty(
    critic: Callable[[Array], Logits], key: Key, real: Float[Array, "B *event"], fake: Float[Array, "B *event"]
) -> Float[Array, ""]:
    """E (||grad critic(y)|| - 1)^2 at y = u x + (1 - u) G(z), with u ~ U[0, 1] for each pair.

    Args:
      critic: [B, *event] -> [B], each example on its own.

    Reference: Gulrajani et al. (2017), Improved training of Wasserstein GANs, arXiv:1704.00028, equation 3.
    """
    u = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)))
    slopes = jax.grad(lambda y: critic(y).sum())(u * real + (1.0 - u) * fake)
    norms = jnp.sqrt(sum_event(slopes**2) + 1e-12)  # the root alone has no derivative at a flat critic
    return jnp.mean((norms - 1.0) ** 2)


class Players(NamedTuple):
    """The two networks, and what samples are made of.

    generator: (z [B, noise_dims], c) -> y [B, *event], integers as `dequantize.centered` scales them
    discriminator: (y, c) -> logit [B]
    start: (parameters of the generator, scaled data) -> parameters, at the beginning; None: as they are
    """

    generator: StatefulNetwork
    discriminator: StatefulNetwork
    noise_dims: int
    prior: str = "normal"
    start: Callable[[Params, Array], Params] | None = None


class Objective(NamedTuple):
    """What the two play for.

    loss: a key of LOSSES
    gradient_penalty: its weight, lambda
    spectral_normalization: of every kernel of the discriminator
    generator_batch: samples of a step of the generator, in batches of data
    """

    loss: str = "non_saturating"
    gradient_penalty: float = 0.0
    spectral_normalization: bool = False
    generator_batch: int = 1


def adversarial(
    spec: Spec, players: Players, objective: Objective, dequantize: bool = False, conditional: bool = False
) -> Model:
    """A generator that is drawn from, and a discriminator that tells its samples from data.

    Statistics of batches, and the vectors of spectral normalization, are the state. Each player's own loss brings its
    own up to date, from data and samples apart; `sample` and `discriminate` use the running averages, which are those
    of the weights as trained even where an average of the weights is evaluated.

    Args:
      dequantize: integers get uniform noise of one level before the discriminator sees them; samples are rounded in
        `sample` alone.
      conditional: both players are given the label, one-hot, beside the vector 'cond', where there are such.

    Raises:
      ValueError: a loss or a prior of noise that does not exist, sizes, or a critic whose slope nothing limits.
    """
    _check(players, objective)
    game, noise, condition = LOSSES[objective.loss], centered(spec), conditioning(spec, conditional)
    normalization = spectral_normalization() if objective.spectral_normalization else _untouched()

    def init(key, batch):
        key_z, key_generator, key_discriminator, key_vectors = jax.random.split(key, 4)
        x, c = noise.forward({}, batch["x"])[0], condition(batch)
        z = draw_noise(players.prior, key_z, len(x), players.noise_dims)
        generator, generator_state = players.generator.init(key_generator, z, c)
        discriminator, discriminator_state = players.discriminator.init(key_discriminator, x, c)
        state = {"generator": generator_state, "discriminator": discriminator_state}
        generator = generator if players.start is None else players.start(generator, x)
        vectors = normalization.init(key_vectors, discriminator)
        return {"discriminator": discriminator, "generator": generator}, state | {"spectral": vectors}

    def generate(params, state, key, c, num, temperature=1.0, training=False):
        z = temperature * draw_noise(players.prior, key, num, players.noise_dims)
        return players.generator.apply(params["generator"], state["generator"], z, c, training=training)

    def discriminator_loss(params, state, key, batch):
        key_noise, key_z, key_dropout, key_penalty = jax.random.split(key, 4)
        c = condition(batch)
        real = noise.forward({}, batch["x"], None, key_noise if dequantize else None)[0]
        fake = jax.lax.stop_gradient(generate(params, state, key_z, c, len(real), training=True)[0])
        weights, vectors = normalization.apply(params["discriminator"], state["spectral"])
        of_real, of_fake, kept = _compare(
            players.discriminator, weights, state["discriminator"], real, fake, c, key_dropout
        )
        critic = functools.partial(players.discriminator.apply, weights, kept)
        value = game.discriminator(of_real, of_fake)
        loss, metrics = _penalized(objective, value, lambda y: critic(y, c)[0], key_penalty, real, fake)
        metrics |= {"real": of_real.mean(), "fake": of_fake.mean()}
        return loss, (state | {"discriminator": kept, "spectral": vectors}, metrics)

    def generator_loss(params, state, key, batch):
        key_z, key_dropout = jax.random.split(key)
        c, num = condition(batch), objective.generator_batch * len(batch["x"])
        c = None if c is None else jnp.repeat(c, objective.generator_batch, axis=0)
        fake, kept = generate(params, state, key_z, c, num, training=True)
        weights, _ = normalization.apply(params["discriminator"], state["spectral"])
        of_fake, _ = players.discriminator.apply(weights, state["discriminator"], fake, c, key_dropout, training=True)
        loss = game.generator(of_fake)
        return loss, (state | {"generator": kept}, {"fake": of_fake.mean()})

    def sample(params, state, key, num, cond=None, temperature=1.0):
        key_cond, key_z = jax.random.split(key)
        c = condition(draw_condition(spec, key_cond, num) | dict(cond or {})) if conditional else None
        y, _ = generate(params, state, key_z, c, num, temperature)
        return noise.inverse(y).astype(jnp.float32)

    def discriminate(params, state, x, cond=None):
        weights, _ = normalization.apply(params["discriminator"], state["spectral"])
        y = noise.forward({}, x)[0]
        return players.discriminator.apply(weights, state["discriminator"], y, condition(cond or {}))[0]

    losses = {"discriminator": discriminator_loss, "generator": generator_loss}
    return Model(init, losses, sample, discriminate=discriminate)


def _penalized(objective, loss, critic, key, real, fake):
    """(loss with the gradient penalty, where there is one; metrics of both)."""
    if not objective.gradient_penalty:
        return loss, {}
    penalty = gradient_penalty(critic, key, real, fake)
    metrics = {f"{objective.loss}_loss": loss, "gradient_penalty": penalty}
    return loss + objective.gradient_penalty * penalty, metrics


def _compare(discriminator, weights, state, real, fake, c, key):
    """(logits of data, logits of samples, state): in two passes where each batch has statistics of its own."""
    if not jax.tree.leaves(state):
        twice = None if c is None else jnp.repeat(c, 2, axis=0)
        both = jnp.stack([real, fake], axis=1).reshape(-1, *real.shape[1:])  # side by side: on a device, its own rows
        logits, kept = discriminator.apply(weights, state, both, twice, key, training=True)
        return *logits.reshape(-1, 2).T, kept
    key_real, key_fake = jax.random.split(key)
    of_real, kept = discriminator.apply(weights, state, real, c, key_real, training=True)
    of_fake, kept = discriminator.apply(weights, kept, fake, c, key_fake, training=True)
    return of_real, of_fake, kept


def _check(players, objective):
    if objective.loss not in LOSSES:
        raise ValueError(f"loss={objective.loss!r}: expected one of {', '.join(LOSSES)}")
    if players.prior not in PRIORS:
        raise ValueError(f"prior={players.prior!r}: expected one of {', '.join(PRIORS)}")
    if min(players.noise_dims, objective.generator_batch) < 1:
        sizes = f"noise_dims={players.noise_dims}, generator_batch={objective.generator_batch}"
        raise ValueError(f"{sizes} must be above zero")
    limited = objective.gradient_penalty or objective.spectral_normalization
    if objective.loss == "wasserstein" and not limited:
        raise ValueError("loss='wasserstein' needs gradient_penalty above zero or spectral_normalization=True")


def draw_noise(prior: str, key: Key, num: int, dims: int) -> Float[Array, "num dims"]:
    """Standard normal noise, or uniform noise of the same variance, each coordinate in [-sqrt 3, sqrt 3)."""
    if prior == "normal":
        return cut_rows(jax.random.normal(key, (num, dims)))
    return cut_rows(jax.random.uniform(key, (num, dims), minval=-math.sqrt(3), maxval=math.sqrt(3)))


def _untouched():
    return Normalization(lambda key, params: {}, lambda params, state: (params, state))
