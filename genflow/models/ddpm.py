"""Denoising diffusion probabilistic models: a chain that adds noise in steps, and a network that takes each step back.

Training is algorithm 1 of Ho et al. (2020), in `_losses`; sampling is algorithm 2, `samplers.diffusion.ancestral`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from genflow.core import Denoised, Model, Network, Path, Spec, sum_event
from genflow.dequantize import centered
from genflow.diffusion import chain_bound
from genflow.diffusion.bound import spread
from genflow.diffusion.chain_bound import VARIANCES, Chain
from genflow.diffusion.path import BETAS, at, chain
from genflow.diffusion.prediction import denoised, target
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.models.flow import conditioning
from genflow.networks.time_mlp import time_mlp
from genflow.networks.unet import unet

PREDICTIONS = ("noise", "data", "v")
OBJECTIVES = ("simple", "vlb", "hybrid")
OWN_SAMPLER = {"large": "ancestral", "small": "ancestral_small", "learned": "ancestral_learned"}
HYBRID_WEIGHT = 0.001 / math.log(2)  # of the bound in nats a dimension, beside the mean squared error
REMEMBERED = 10  # values of each step's term
EMBEDDED_STEPS = 1000  # of the chain at whose angles networks embed the time
UNIFORM_PART = 0.001  # of the probability of a step


def ddpm(
    spec: Spec,
    num_steps: int = 1000,
    schedule: str = "linear",
    prediction: str = "noise",
    objective: str = "simple",
    variance: str = "large",
    importance_times: bool = False,
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    dropout: float = 0.1,
    scale_shift: bool = False,
    memory: str = "store",
    sampler: str = "ancestral",
    sampler_steps: int = 1000,
    guidance: float = 0.0,
    spacing: str = "linear",
    likelihood: str = "bound",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """Images, with a U-Net, or vectors, with a perceptron of `width` and `blocks`.

    Args:
      schedule: of the noise, 'linear' or 'cosine'.
      prediction: what the network says: 'noise', 'data' or 'v'.
      objective: 'simple', the error of the prediction a dimension; 'vlb', the variational bound; 'hybrid', the first
        and 0.001 times the second, which teaches the variance alone.
      variance: of a reverse step, 'large', 'small' or 'learned' (`chain_bound.reverse_log_variance`).
      importance_times: steps are drawn in proportion to the root of the mean square of their last terms of the bound.
      sampler: 'ancestral' is the model's own chain, with its own variance; or another.

    Raises:
      ValueError: a choice that does not exist, or two that do not go together.

    Reference: Ho et al. (2020), Denoising diffusion probabilistic models, arXiv:2006.11239; Nichol and Dhariwal (2021),
      Improved denoising diffusion probabilistic models, arXiv:2102.09672.
    """
    _check(num_steps, schedule, prediction, objective, variance, sampler_steps)
    parts = 2 if variance == "learned" else 1
    if len(spec.shape) == 1:
        network = time_mlp(width, blocks)(parts * spec.dims)
    else:
        architecture = unet(width, multipliers, blocks, attention, heads, dropout, scale_shift, memory=memory)
        network = architecture(parts * spec.shape[-1])
    betas, network = BETAS[schedule](num_steps), told_steps(network, num_steps)
    process, log_weights = chain_process(spec, network, betas, prediction, objective, variance, importance_times)
    own = OWN_SAMPLER[variance] if sampler == "ancestral" else sampler
    sampling = Sampling(own, sampler_steps, guidance, spacing)
    model = diffusion(spec, process, sampling, Likelihood(likelihood, rtol, atol), conditional, drop_condition)
    return model._replace(log_weights=_of_batches(spec, conditional, log_weights))


def told_steps(network: Network, num_steps: int) -> Network:
    """The network, told time as if steps lay apart as those of a chain of EMBEDDED_STEPS, at least.

    The angles in which networks embed the time are then of a radian a step, as in the paper: more, and sines would wind
    between two steps of a short chain, where equations in continuous time ask too.
    """
    slower = min(1.0, num_steps / EMBEDDED_STEPS)

    def apply(params, x, cond=None, key=None):
        t, c = cond
        return network.apply(params, x, (slower * t, c), key)

    return Network(network.init, apply)


class Reverse(NamedTuple):
    """A network as the reverse of a chain.

    raw(params, z, t, c, key) -> (prediction, v or None), each like z; t = i / T
    denoised(prediction, v, z, t) -> Denoised with the log-variance of p(z_(i-1) | z_i)
    """

    raw: Callable[..., tuple[Array, Array | None]]
    denoised: Callable[..., Denoised]

    def ask(self, params: PyTree, z: Array, t: Array, c: Array | None, key: Array | None = None) -> Denoised:
        """What the chain back makes of z."""
        return self.denoised(*self.raw(params, z, t, c, key), z, t)


def reverse_chain(network: Network, constants: Chain, path: Path, prediction: str, variance: str) -> Reverse:
    """Of a network of the prediction, and where the variance is learned of 2 v - 1, in as many channels again."""

    def raw(params, z, t, c, key):
        said = network.apply(params, z, (t, c), key)
        if variance != "learned":
            return said, None
        of_mean, of_variance = jnp.split(said, 2, axis=-1)
        return of_mean, 0.5 * (of_variance + 1)

    def both(of_mean, v, z, t):
        i = (constants.num_steps * t).reshape(-1, *(1,) * (z.ndim - 1))
        log_variance = chain_bound.reverse_log_variance(constants, variance, v)(i)
        return denoised(prediction, of_mean, z, at(path, t, z.ndim))._replace(log_variance=log_variance)

    return Reverse(raw, both)


def chain_process(
    spec: Spec,
    network: Network,
    betas: Float[np.ndarray, " T"],
    prediction: str = "noise",
    objective: str = "simple",
    variance: str = "large",
    importance_times: bool = False,
) -> tuple[Process, Callable[..., Float[Array, "B num"]]]:
    """The family for any network and any chain, and its log_weights(params, key, x, c, num)."""
    constants, path = chain_bound.chain_of(betas), chain(betas)
    num_steps = constants.num_steps
    reverse = reverse_chain(network, constants, path, prediction, variance)

    def init(key, x, c):
        return network.init(key, x, (jnp.zeros(len(x)), c))

    def denoise(params, z, t, c=None, key=None):
        found = reverse.ask(params, z, t, c, key)
        return found if variance == "learned" else found._replace(log_variance=None)

    def of_step(params, key, x, c, i):
        z = chain_bound.noised(constants, i, x, jax.random.normal(key, x.shape))
        return chain_bound.step_term(spec, constants, i, x, reverse.ask(params, z, i / num_steps, c))

    def terms(params, key, x, c, i):
        values = of_step(params, key, x, c, jnp.broadcast_to(jnp.maximum(i, 1), len(x)))
        return jnp.where(i == 0, chain_bound.end_term(constants, x), values)

    def bound(params, state, key, x, c):
        key_time, key_noise, _ = jax.random.split(key, 3)
        probabilities = by_log_snr(constants)
        i = draw_steps(key_time, len(x), probabilities)
        return chain_bound.end_term(constants, x) + of_step(params, key_noise, x, c, i) / probabilities[i - 1]

    def log_weights(params, key, x, c, num):
        c = None if c is None else jnp.repeat(c, num, axis=0)

        def predict(z, i):
            return reverse.ask(params, z, jnp.broadcast_to(i / num_steps, len(z)), c)

        return chain_bound.log_weight(spec, constants, predict, key, jnp.repeat(x, num, axis=0)).reshape(len(x), num)

    loss = _losses(spec, constants, path, reverse, prediction, objective, importance_times)
    state = empty_history(num_steps) if importance_times else {}
    return Process(init, lambda params: path, denoise, loss, bound, state, terms, num_steps), log_weights


def _losses(spec, constants, path, reverse, prediction, objective, importance_times):
    """Algorithm 1. Its line 2 is the batch, its lines 1, 5 and 6 are the training loop's, which has no line of ours."""
    num_steps = constants.num_steps

    def loss(params, state, key, x, c):
        key_time, key_noise, key = jax.random.split(key, 3)
        probabilities = step_probabilities(state) if importance_times else equal(num_steps)
        i = draw_steps(key_time, len(x), probabilities)  # line 3: t ~ Uniform({1, ..., T})
        noise = jax.random.normal(key_noise, x.shape)  # line 4: eps ~ N(0, I)
        z, t = chain_bound.noised(constants, i, x, noise), i / num_steps
        said, v = reverse.raw(params, z, t, c, key)
        wanted = target(prediction, x, noise, at(path, t, x.ndim))
        error = sum_event((wanted - said) ** 2) / spec.dims  # line 5: ||eps - eps_theta(z_t, t)||^2
        if objective == "hybrid":
            said = jax.lax.stop_gradient(said)
        term = chain_bound.step_term(spec, constants, i, x, reverse.denoised(said, v, z, t))
        weight = 1 / (num_steps * probabilities[i - 1])
        nll = chain_bound.end_term(constants, x) + num_steps * weight * term
        values = {
            "simple": weight * error,
            "vlb": nll / spec.dims,
            "hybrid": weight * error + HYBRID_WEIGHT * nll / spec.dims,
        }[objective]
        state = remember(state, i, jax.lax.stop_gradient(term)) if importance_times else state
        return values, state, {"nll": nll.mean(), "simple_loss": (weight * error).mean()}

    return loss


def draw_steps(key: Array, num: int, probabilities: Float[Array, " T"]) -> Int[Array, " num"]:
    """Steps 1 .. T, each drawn by the probabilities, and all together spread over them."""
    below = jnp.cumsum(probabilities)
    i = jnp.searchsorted(below, spread(key, num) * below[-1], side="right")
    return 1 + jnp.minimum(i, len(probabilities) - 1)


def equal(num_steps: int) -> Float[Array, " T"]:
    """The same probability for every step."""
    return jnp.full(num_steps, 1 / num_steps)


def by_log_snr(constants: Chain) -> Float[Array, " T"]:
    """In proportion to the log-SNR that a step takes, the first as the second: terms of the bound go with it.

    The term of a step is about half of it times the squared error of the noise, so that a random step is far less of a
    gamble than among equals.
    """
    log_snr = 2 * (np.log(constants.alpha[1:], dtype=np.float64) - np.log(constants.sigma[1:], dtype=np.float64))
    taken = np.concatenate([log_snr[:1] - log_snr[1:2], log_snr[:-1] - log_snr[1:]])
    return jnp.asarray(taken / taken.sum(), jnp.float32)


def empty_history(num_steps: int) -> dict[str, Array]:
    """The last REMEMBERED terms of each step, and how many there have been of each."""
    return {"terms": jnp.zeros((num_steps, REMEMBERED)), "counts": jnp.zeros(num_steps, jnp.int32)}


def step_probabilities(history: dict[str, Array]) -> Float[Array, " T"]:
    """In proportion to sqrt(E[L_i^2]) of the remembered terms, with a small uniform part; uniform until all are there.

    Reference: Nichol and Dhariwal (2021), arXiv:2102.09672, equation 18; the uniform part is that of the official code.
    """
    size = jnp.sqrt((history["terms"] ** 2).mean(1))
    share = size / jnp.maximum(size.sum(), jnp.finfo(size.dtype).tiny)
    mixed = (1 - UNIFORM_PART) * share + UNIFORM_PART / len(size)
    return jnp.where((history["counts"] >= REMEMBERED).all(), mixed, 1 / len(size))


def remember(history: dict[str, Array], i: Int[Array, " B"], terms: Float[Array, " B"]) -> dict[str, Array]:
    """The history with a batch of terms, as if they had come one after another."""
    order = jnp.argsort(i)
    i, terms, places = i[order], terms[order], jnp.arange(len(i))
    before, after = places - jnp.searchsorted(i, i), jnp.searchsorted(i, i, side="right") - 1 - places
    slot = (history["counts"][i - 1] + before) % REMEMBERED
    # of more terms of one step than are remembered the last ones count; the others are written to no row
    row = jnp.where(after < REMEMBERED, i - 1, len(history["counts"]))
    values = history["terms"].at[row, slot].set(terms, mode="drop")
    return {"terms": values, "counts": history["counts"].at[i - 1].add(1)}


def _of_batches(spec, conditional, log_weights):
    """Model.log_weights."""
    noise, condition = centered(spec), conditioning(spec, conditional)

    def of_batch(params, state, key, batch, num):
        x = noise.forward({}, batch["x"])[0].astype(jnp.float32)
        return log_weights(params["model"], key, x, condition(batch), num)

    return of_batch


def _check(num_steps, schedule, prediction, objective, variance, sampler_steps):
    for name, value, known in (
        ("schedule", schedule, BETAS),
        ("prediction", prediction, PREDICTIONS),
        ("objective", objective, OBJECTIVES),
        ("variance", variance, VARIANCES),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if variance == "learned" and objective == "simple":
        raise ValueError("variance='learned' is not part of objective='simple'; set that to 'hybrid' or 'vlb'")
    if objective == "hybrid" and variance != "learned":
        raise ValueError(f"objective='hybrid' teaches the variance; set variance='learned', not {variance!r}")
    if sampler_steps > num_steps:
        raise ValueError(f"sampler_steps={sampler_steps}: the chain has num_steps={num_steps}")
