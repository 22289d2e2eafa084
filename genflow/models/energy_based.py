"""What energy-based models trained by Langevin dynamics share: a buffer of chains, the contrastive loss, samples.

Chains live where the network sees the data (`Scale`). A step of training continues some of them, and lowers the energy
of the data, E(x+), against that of where the chains end, E(x-). Three published ways are settings of `Chains`: a replay
buffer (many images for each row of a batch, few restarts), persistent chains (one image for each row, no restarts) and
short-run chains (every chain starts from noise).

Reference: Du and Mordatch (2019), arXiv:1903.08689; Tieleman (2008), Training restricted Boltzmann machines using
approximations to the likelihood gradient (persistent chains); Nijkamp et al. (2019), Learning non-convergent
non-persistent short-run MCMC toward energy-based model, arXiv:1904.09770.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow import dequantize
from genflow.core import EnergyBased, Key, Model, Params, Spec
from genflow.samplers.langevin import langevin

CHAINS = "chains"  # the leaf of the state that is cut along the mesh's data axis, as a batch is
ASTRAY = 10.0  # a sample further out than so many widths of the interval has diverged


class Scale(NamedTuple):
    """Where the network sees images: forward(x, key=None) -> y, with noise where a key is given; inverse(y) -> x."""

    forward: Callable[..., Array]
    inverse: Callable[[Array], Array]
    interval: tuple[float, float]


class Chains(NamedTuple):
    """How samples are drawn for the loss.

    steps, step_size, noise: of Langevin dynamics, see `samplers.langevin.langevin_step`
    max_gradient: each coordinate of the energy's gradient is clipped to it; 0: no limit
    clips: whether images are clipped to the scale's interval after every step
    buffer: images that are kept, at least one for each row of a batch
    restarts: probability that a chain starts from uniform noise instead of from the buffer
    """

    steps: int
    step_size: float
    noise: float
    max_gradient: float
    clips: bool
    buffer: int
    restarts: float


class Density(NamedTuple):
    """An energy with parameters.

    init(key, y, labels) -> (params, state)
    prepare(params, state) -> (params that the others take, state): what is computed once for all steps of a chain
    energy(params, y, label=None) -> [B], E(y, label), or -log sum_label exp(-E(y, label)) without a label
    logits(params, y) -> [B, K], -E(y, label) of every label; None where there are no labels
    """

    init: Callable[..., tuple[Params, dict]]
    prepare: Callable[..., tuple[Params, dict]]
    energy: Callable[..., Float[Array, " B"]]
    logits: Callable[..., Float[Array, "B K"]] | None = None


class Sampling(NamedTuple):
    """How `Model.sample` draws: steps (0: those of training), from old chains or from noise, given labels or not."""

    steps: int = 0
    from_buffer: bool = False
    conditional: bool = False


def unit_scale(spec: Spec, input_noise: float = 0.0) -> Scale:
    """Images in [0, 1], uniformly dequantized where there is a key, and Gaussian noise of std `input_noise` on top."""
    uniform = dequantize.uniform(_checked(spec).bins)

    def forward(x, key=None):
        y = uniform.forward({}, x, None, key)[0] + 0.5
        return _noisy(y, key, input_noise)

    return Scale(forward, lambda y: uniform.inverse(y - 0.5), (0.0, 1.0))


def centered_scale(spec: Spec, input_noise: float = 0.0) -> Scale:
    """Images in [-1, 1], with Gaussian noise of std `input_noise` where there is a key."""
    inverse = dequantize.centered(_checked(spec)).inverse
    return Scale(lambda x, key=None: _noisy(dequantize.center(x, spec), key, input_noise), inverse, (-1.0, 1.0))


def _checked(spec):
    if spec.kind != "images" or spec.bins is None:
        raise ValueError(f"models images of integers; {spec.name} has events of shape {spec.shape}, bins {spec.bins}")
    return spec


def _noisy(y, key, std):
    return y if key is None or not std else y + std * jax.random.normal(jax.random.fold_in(key, 1), y.shape)


def check_chains(chains: Chains, sampling: Sampling, divergence: float) -> None:
    """Raises ValueError for settings of which no chain or no loss comes."""
    if chains.steps < 1 or sampling.steps < 0:
        raise ValueError(f"steps={chains.steps} must be above zero, sample_steps={sampling.steps} not below")
    if chains.step_size <= 0 or divergence <= 0:
        raise ValueError(f"step_size={chains.step_size} and divergence={divergence} must be above zero")
    if not 0 <= chains.restarts <= 1:
        raise ValueError(f"restarts={chains.restarts} is a probability")
    if min(chains.noise, chains.max_gradient, chains.buffer) < 0:
        named = f"noise={chains.noise}, max_gradient={chains.max_gradient}, buffer={chains.buffer}"
        raise ValueError(f"{named} must not be negative")


def initial_chains(
    chains: Chains, scale: Scale, key: Key, rows: int, event: tuple[int, ...]
) -> Float[Array, "rows depth *event"]:
    """Uniform noise: images of its own for each row of a batch, so that a chain never leaves its device."""
    return _uniform(scale, key, (rows, max(chains.buffer // rows, 1), *event))


def _uniform(scale, key, shape):
    low, high = scale.interval
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def negatives(
    chains: Chains,
    scale: Scale,
    energy: Callable[[Array], Float[Array, " B"]],
    key: Key,
    buffer: Float[Array, "rows depth *event"],
    num: int,
) -> tuple[Float[Array, "num *event"], Float[Array, "rows depth *event"]]:
    """Where `num` chains end, and the buffer in which they replace what they started from, or would have.

    Neither has a gradient; `energy` must not depend on anything that is differentiated.

    Args:
      num: divides the rows, which a part of a batch shares out among its own.
    """
    if len(buffer) % num:
        raise ValueError(f"a batch of {num} has no chains: they are for parts of a batch of {len(buffer)}")
    key_place, key_restart, key_noise, key_steps = jax.random.split(key, 4)
    slots = buffer.reshape(num, -1, *buffer.shape[2:])
    place = jax.random.randint(key_place, (num,), 0, slots.shape[1])
    old = jax.vmap(lambda row, i: jax.lax.dynamic_index_in_dim(row, i, 0, keepdims=False))(slots, place)
    restart = jax.random.bernoulli(key_restart, chains.restarts, (num, *(1,) * (old.ndim - 1)))
    start = jnp.where(restart, _uniform(scale, key_noise, old.shape), old)
    end = jax.lax.stop_gradient(run(chains, scale, energy, key_steps, start))
    new = jax.vmap(lambda row, i, y: jax.lax.dynamic_update_index_in_dim(row, y, i, 0))(slots, place, end)
    return end, new.reshape(buffer.shape)


def run(
    chains: Chains,
    scale: Scale,
    energy: Callable[[Array], Float[Array, " B"]],
    key: Key,
    y: Float[Array, "B *event"],
    steps: int = 0,
    temperature: float | Array = 1.0,
) -> Float[Array, "B *event"]:
    """Langevin dynamics from y, one compiled loop of `steps` (0: those of training); `temperature` scales the noise."""
    return langevin(
        lambda y: -jax.grad(lambda y: energy(y).sum())(y),
        key,
        y,
        steps or chains.steps,
        chains.step_size,
        temperature * chains.noise,
        chains.max_gradient,
        scale.interval if chains.clips else None,
    )


def contrastive(
    of_data: Float[Array, " B"], of_samples: Float[Array, " B"], regularization: float, divergence: float
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """mean E(x+) - mean E(x-) + regularization * mean(E(x+)^2 + E(x-)^2), and metrics, in nats.

    The metric `diverged` is 1 where the means are further apart than `divergence` or an energy is not finite, else 0.

    Reference: Du and Mordatch (2019), arXiv:1903.08689, algorithm 1.
    """
    difference = of_data.mean() - of_samples.mean()
    fine = jnp.isfinite(difference) & (jnp.abs(difference) <= divergence)
    metrics = {
        "contrastive_loss": difference,
        "energy_data": of_data.mean(),
        "energy_samples": of_samples.mean(),
        "diverged": (~fine).astype(jnp.float32),
    }
    penalty = regularization * (of_data**2 + of_samples**2).mean()
    return difference + penalty if regularization else difference, metrics


def energy_based(
    spec: Spec, density: Density, scale: Scale, chains: Chains, sampling: Sampling, loss: Callable
) -> Model:
    """A model of a density and a loss(params, state, key, batch); `state` holds the density's own and the chains.

    `sample` runs chains from uniform noise or on from the buffer; its temperature scales the noise of starts and steps.
    """

    def init(key, batch):
        key_params, key_chains = jax.random.split(key)
        rows = len(batch["x"])
        params, state = density.init(key_params, scale.forward(batch["x"]), batch["label"] if density.logits else None)
        return {"model": params}, state | {CHAINS: initial_chains(chains, scale, key_chains, rows, spec.shape)}

    def energy(params, state, x, cond=None):
        label = cond["label"] if cond and density.logits else None
        return density.energy(density.prepare(params["model"], state)[0], scale.forward(x), label)

    def score(params, state, x, cond=None):
        return -jax.grad(lambda x: energy(params, state, x, cond).sum())(x.astype(jnp.float32))

    def classify(params, state, x):
        return density.logits(density.prepare(params["model"], state)[0], scale.forward(x))

    def sample(params, state, key, num, cond=None, temperature=1.0):
        if isinstance(temperature, tuple):
            raise ValueError("an energy-based model has one temperature")
        key_start, key_steps = jax.random.split(key)
        prepared = density.prepare(params["model"], state)[0]
        label = (cond or {}).get("label", jnp.arange(num) % spec.num_classes) if sampling.conditional else None
        start = _start(scale, key_start, (num, *spec.shape), state[CHAINS] if sampling.from_buffer else None)
        middle = sum(scale.interval) / 2
        y = middle + temperature * (start - middle)
        y = run(chains, scale, lambda y: density.energy(prepared, y, label), key_steps, y, sampling.steps, temperature)
        return _shown(scale, y)

    def buffered(params, state):
        return _shown(scale, state[CHAINS].reshape(-1, *spec.shape))

    return Model(
        init,
        {"model": loss},
        sample,
        energy=energy,
        score=score,
        classify=classify if density.logits else None,
        energy_based=EnergyBased(buffered),
    )


def _start(scale, key, shape, buffer):
    if buffer is None:
        return _uniform(scale, key, shape)
    images = buffer.reshape(-1, *shape[1:])
    return images[jax.random.randint(key, shape[:1], 0, len(images))]


def _shown(scale, y):
    """Data space; NaN for what left the interval for good."""
    low, high = scale.interval
    astray = jnp.abs(y - (low + high) / 2) > ASTRAY * (high - low)
    return scale.inverse(jnp.where(astray, jnp.nan, y))
