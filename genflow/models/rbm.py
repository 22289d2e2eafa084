"""Restricted Boltzmann machines, trained by contrastive divergence and scored by their partition function."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import EnergyBased, Key, Model, Params, Spec
from genflow.dequantize import centered
from genflow.models import harmonium
from genflow.models.harmonium import Visible, bernoulli_visible, gaussian_visible
from genflow.samplers.annealed_importance import annealed_walk, dense_at_the_end, log_mean_weight

VISIBLE = ("bernoulli", "gaussian")
MOST_ENUMERATED = 20  # hidden units
ENUMERATION, FORWARD, REVERSE = "enumeration", "forward AIS", "reverse AIS"
WATCHED = 10  # examples of a batch whose reconstruction is a metric
LEAST_STD = 0.1  # of a unit, in root mean squares of all units' standard deviations
BURN_IN = 200  # Gibbs sweeps from the ends of forward walks to what is taken for draws of the model


class Annealing(NamedTuple):
    """How log Z is estimated where it cannot be summed: so many chains, and about so many temperatures."""

    chains: int
    steps: int


def rbm(
    spec: Spec,
    hidden: int = 500,
    visible: str = "bernoulli",
    gibbs_steps: int = 1,
    persistent: bool = True,
    centering: bool = True,
    offset_rate: float = 0.01,
    weight_std: float = 0.01,
    noise_std: float = 1.0,
    sample_steps: int = 1000,
    ais_chains: int = 100,
    ais_steps: int = 14_500,
) -> Model:
    """p(v, h) = exp(-E(v, h)) / Z, E = -a.v - b.h - v.W h for binary v, trained by contrastive divergence.

    Up to 20 hidden units log Z is a sum over all their states, and log_prob is exact. Of more it is the estimate of
    annealed importance sampling from independent units, low on average, so that log_prob is optimistic; a walk back,
    which errs the other way as far as it begins at draws of the model, stands beside it.

    Args:
      visible: 'bernoulli', of data with two values; 'gaussian', of continuous data, or of integers uniformly
        dequantized.
      gibbs_steps: k of CD-k.
      persistent: chains go on from step to step, one for each example of a batch (PCD); otherwise they begin at data.
      centering: the gradient of a machine in which the running means of the units are taken off them.
      offset_rate: of a batch's means in the running ones.
      weight_std: of the first weights.
      noise_std: of Gaussian units given the hidden ones, in standard deviations of the data, as the first batch has
        them.
      sample_steps: Gibbs sweeps of a sample, from independent units.
      ais_chains, ais_steps: of annealed importance sampling.

    Raises:
      ValueError: data that the visible units do not fit, or a number out of range.

    Reference: Hinton (2002), Training products of experts by minimizing contrastive divergence, Neural Computation 14;
      Tieleman (2008), Training RBMs using approximations to the likelihood gradient; Melchior et al. (2016), How to
      center deep Boltzmann machines, JMLR 17; Salakhutdinov and Murray (2008), On the quantitative analysis of deep
      belief networks.
    """
    _check(spec, visible, offset_rate, hidden, gibbs_steps, weight_std, noise_std, sample_steps, ais_chains, ais_steps)
    units = bernoulli_visible() if visible == "bernoulli" else gaussian_visible()
    scale = _unscaled(spec) if visible == "bernoulli" else _standardized(spec, noise_std)
    annealing = None if hidden <= MOST_ENUMERATED else Annealing(ais_chains, ais_steps)

    def init(key, batch):
        key, key_data = jax.random.split(key)
        state = scale.init(key_data, batch["x"])
        v = scale.read(state, batch["x"], key_data)[0]
        state |= {"chains": v[:, None], "visible_mean": v.mean(0), "hidden_mean": jnp.full(hidden, 0.5)}
        kernel = weight_std * jax.random.normal(key, (spec.dims, hidden))
        params = {"kernel": kernel, "visible_bias": units.bias(v.mean(0)), "hidden_bias": jnp.zeros(hidden)}
        return {"model": params}, state | {"log_partition": _unknown(annealing)}

    def loss(params, state, key, batch):
        params, (key_data, key) = params["model"], jax.random.split(key)
        v = scale.read(state, batch["x"], key_data)[0]
        start = state["chains"].reshape(len(v), -1, spec.dims)[:, 0] if persistent else v
        fantasy = jax.lax.stop_gradient(harmonium.gibbs(units, params, key, start, gibbs_steps))
        state = _followed(params, state, v, offset_rate)
        gap = contrastive(units, params, v, fantasy, *_offsets(state) if centering else ())
        error = jnp.square(harmonium.reconstruction(units, params, v[:WATCHED]) - v[:WATCHED]).sum(1).mean()
        metrics = {"free_energy_gap": gap, "reconstruction_error": error}
        return gap, (state | {"chains": _kept(state["chains"], fantasy)}, jax.lax.stop_gradient(metrics))

    def log_prob(params, state, key, batch):
        v, log_weight = scale.read(state, batch["x"], key)
        log_z = state["log_partition"][FORWARD if annealing else ENUMERATION][0]
        return log_weight - harmonium.free_energy(units, params["model"], v) - log_z

    energy, score = _energy(units, scale)
    kind = "exact" if visible == "bernoulli" or spec.bins is None else "lower"
    return Model(
        init,
        {"model": loss},
        _sampler(spec, units, scale, sample_steps),
        log_prob,
        "estimate" if annealing else kind,
        energy=energy,
        score=score,
        energy_based=EnergyBased(
            *_shown(spec, units, scale), _normalizer(units, annealing), lambda state: state["log_partition"]
        ),
    )


class Scale(NamedTuple):
    """Data as visible units: init(key, x) -> state, read(state, x, key) -> (v [B, D], log-weight [B]), and back.

    Integers are dequantized where a key is given.
    """

    init: Callable[..., dict]
    read: Callable[..., tuple[Array, Array]]
    events: Callable[..., Array]


def _unscaled(spec):
    return Scale(
        lambda key, x: {},
        lambda state, x, key: (x.reshape(len(x), -1).astype(jnp.float32), jnp.zeros(len(x))),
        lambda state, v: v.reshape(-1, *spec.shape),
    )


def _standardized(spec, noise_std):
    """Units of variance 1 / noise_std^2, as the first batch has them; of constant units as if they had a little."""
    noise = centered(spec)

    def flat(x, key):
        y, log_weight = noise.forward({}, x, None, key)
        return y.reshape(len(y), -1).astype(jnp.float32), log_weight

    def init(key, x):
        y = flat(x, key)[0]
        std = y.std(0)
        least = LEAST_STD * jnp.sqrt(jnp.square(std).mean()) + 1e-6
        return {"shift": y.mean(0), "scale": noise_std * jnp.maximum(std, least)}

    def read(state, x, key):
        y, log_weight = flat(x, key)
        return (y - state["shift"]) / state["scale"], log_weight - jnp.log(state["scale"]).sum()

    def events(state, v):
        return noise.inverse((state["shift"] + state["scale"] * v).reshape(-1, *spec.shape))

    return Scale(init, read, events)


def _sampler(spec, units, scale, steps):
    """The function `sample` of a Model."""

    def sample(params, state, key, num, cond=None, temperature=1.0):
        key_start, key = jax.random.split(key)
        base = {"visible_bias": units.bias(state["visible_mean"])}
        start = units.draw(base, jnp.zeros((num, spec.dims)), key_start, temperature)
        return scale.events(state, harmonium.gibbs(units, params["model"], key, start, steps, temperature))

    return sample


def _energy(units, scale):
    """The functions `energy` and `score` of a Model."""

    def energy(params, state, x, cond=None):
        return harmonium.free_energy(units, params["model"], scale.read(state, x, None)[0])

    return energy, lambda params, state, x, cond=None: jax.grad(lambda x: -energy(params, state, x).sum())(x)


def _shown(spec, units, scale):
    """The functions `chains` and `filters` of an EnergyBased."""

    def chains(params, state):
        return scale.events(state, harmonium.reconstruction(units, params["model"], state["chains"][:, 0]))

    def filters(params, state):
        active = harmonium.hidden_mean(params["model"], state["chains"][:, 0]).mean(0)
        return params["model"]["kernel"].T[jnp.argsort(-active)].reshape(-1, *spec.shape)

    return chains, filters


def _offsets(state):
    return state["visible_mean"], state["hidden_mean"]


def _normalizer(units, annealing):
    """The function `normalize` of an EnergyBased: by annealing, or by enumeration."""

    def normalize(params, state, key):
        if annealing:
            known = annealed_log_partition(units, params["model"], state["visible_mean"], key, annealing)
        else:
            known = {ENUMERATION: (harmonium.log_partition_exact(units, params["model"]), jnp.zeros(()))}
        return state | {"log_partition": known}

    return normalize


def _unknown(annealing):
    names = (FORWARD, REVERSE) if annealing else (ENUMERATION,)
    return {name: (jnp.full((), jnp.nan), jnp.full((), jnp.nan)) for name in names}


def _followed(params, state, v, rate):
    """The state with running means moved towards those of a batch."""
    params = jax.lax.stop_gradient(params)
    seen = {"visible_mean": v, "hidden_mean": harmonium.hidden_mean(params, v)}
    return state | {name: (1 - rate) * state[name] + rate * a.mean(0) for name, a in seen.items()}


def _kept(chains, fantasy):
    """The chains [rows, 1, D] with the first of each `rows / batch` gone on, and the next one first.

    So each part of a batch finds chains of its own, and after all parts they are in their order again.
    """
    count = len(chains) // len(fantasy)
    moved = chains.reshape(len(fantasy), count, -1).at[:, 0].set(fantasy)
    return jnp.roll(moved, -1, axis=1).reshape(chains.shape)


def contrastive(
    units: Visible,
    params: Params,
    data: Float[Array, "B D"],
    fantasy: Float[Array, "B D"],
    visible_offset: Float[Array, " D"] | float = 0.0,
    hidden_offset: Float[Array, " H"] | float = 0.0,
) -> Float[Array, ""]:
    """Mean free energy of data less that of fantasies; its derivative is the centered gradient.

    Without offsets that is the derivative of the value. With offsets mu of what multiplies W h, and lambda of h, the
    weights follow <(v - mu)(h - lambda)^T>, and the biases follow what those of the centered machine do, as seen from
    here: less (grad W) lambda and (grad W)^T mu.

    Reference: Melchior et al. (2016), How to center deep Boltzmann machines, JMLR 17, section 3.
    """

    def gap(params):
        return harmonium.free_energy(units, params, data).mean() - harmonium.free_energy(units, params, fantasy).mean()

    value, plain = jax.value_and_grad(gap)(jax.lax.stop_gradient(params))
    mu = jnp.broadcast_to(visible_offset, plain["visible_bias"].shape)
    lam = jnp.broadcast_to(hidden_offset, plain["hidden_bias"].shape)
    kernel = plain["kernel"] - jnp.outer(mu, plain["hidden_bias"]) - jnp.outer(plain["visible_bias"], lam)
    biases = {
        "visible_bias": plain["visible_bias"] - kernel @ lam,
        "hidden_bias": plain["hidden_bias"] - kernel.T @ mu,
    }
    along = jax.lax.stop_gradient(plain | {"kernel": kernel} | biases)
    slope = sum(jnp.vdot(along[name], params[name]) for name in params)
    return jax.lax.stop_gradient(value - slope) + slope


def annealed_log_partition(
    units: Visible, params: Params, mean: Float[Array, " D"], key: Key, annealing: Annealing
) -> dict[str, tuple[Array, Array]]:
    """{estimator: (log Z, standard error)}, nats, by annealed importance sampling both ways.

    Args:
      mean: of the independent visible units at which the walk begins, the data's.
    """
    base, betas = units.bias(mean), jnp.asarray(dense_at_the_end(annealing.steps), jnp.float32)
    key_start, key_up, key_chosen, key_burn, key_down = jax.random.split(key, 5)

    def log_densities(v, beta, after):
        return harmonium.tempered_log_densities(units, params, base, v, jnp.stack([beta, after]))

    def transition(key, v, beta):
        return harmonium.gibbs(units, harmonium.tempered(params, base, beta), key, v, 1)

    apart = harmonium.tempered(params, base, 0.0)
    v = units.draw(apart, jnp.zeros((annealing.chains, len(base))), key_start, 1.0)
    up = annealed_walk(log_densities, transition, key_up, v, betas)
    chosen = jax.random.categorical(key_chosen, up.log_weights, shape=(annealing.chains,))
    drawn = harmonium.gibbs(units, params, key_burn, up.x[chosen], BURN_IN)
    down = annealed_walk(log_densities, transition, key_down, drawn, betas[::-1])
    start = harmonium.log_partition_apart(units, apart)
    (ratio, error), (back, back_error) = log_mean_weight(up.log_weights), log_mean_weight(down.log_weights)
    return {FORWARD: (start + ratio, error), REVERSE: (start - back, back_error)}


def _check(spec, visible, offset_rate, *positive):
    if visible not in VISIBLE:
        raise ValueError(f"visible={visible!r}: expected one of {', '.join(VISIBLE)}")
    if visible == "bernoulli" and spec.bins != 2:
        values = "continuous values" if spec.bins is None else f"{spec.bins} values"
        remedy = "set config.data.binarize, or take visible='gaussian'"
        raise ValueError(f"visible='bernoulli' is for two values, and {spec.name} has {values}; {remedy}")
    if not 0 <= offset_rate <= 1:
        raise ValueError(f"offset_rate={offset_rate} must be between 0 and 1")
    if min(positive) <= 0 or positive[-2] < 2:
        names = "hidden, gibbs_steps, weight_std, noise_std, sample_steps, ais_chains (2 or more) and ais_steps"
        raise ValueError(f"{names} must be above zero, not {', '.join(map(str, positive))}")
