"""Latent variable models: levels of latents, an approximate posterior, an observation, and bounds on the evidence.

log p(x) >= E_q[log w] with log w = log p(x | z) + sum_l [log p(z_l | ...) - log q(z_l | x, ...)]; the log-mean-exp of
several w is a tighter bound (Burda et al. 2016, Importance weighted autoencoders, arXiv:1509.00519, equation 8).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from genflow.core import Inference, Latent, Model, Params, Spec, sum_event
from genflow.dequantize import center
from genflow.distributions import normal_kl, normal_log_prob
from genflow.models.observation import Observation

GRADIENTS = ("reparameterized", "doubly_reparameterized")


class Walk(NamedTuple):
    """One draw of all levels; see `core.Inference`."""

    z: PyTree
    h: Float[Array, "B *shape"]  # what the observation is given
    log_prior: Float[Array, "L B"]
    log_posterior: Float[Array, "L B"]
    kl: Float[Array, "L B"]


class Hierarchy(NamedTuple):
    """The levels of a latent variable model, without its observation. x is scaled to [-1, 1].

    num_levels: L
    init(key, x) -> params
    evidence(params, x) -> e: what q needs of the data, leaves [B, ...]; computed once for many draws
    infer(params, key, e, from_posterior [L], temperature [L]) -> Walk
    joint(params, z) -> (h, log_prior [L, B]) of given latents
    generate(params, key, num, temperature [L]) -> (z, h)
    log_posterior(params, e, z) -> [L, B] of given latents, where params are {'inference': ..., 'generation': ...} and q
        uses the first alone; None where q has no density that is cheap, or shares parameters with p
    shares: what `Objective.balance` takes for each level's natural part of the KL, up to a factor
    """

    num_levels: int
    init: Callable[..., Params]
    evidence: Callable[..., PyTree]
    infer: Callable[..., Walk]
    joint: Callable[..., tuple[Array, Float[Array, "L B"]]]
    generate: Callable[..., tuple[PyTree, Array]]
    log_posterior: Callable[..., Float[Array, "L B"]] | None = None
    shares: tuple[float, ...] | None = None


class Gaussian(NamedTuple):
    """A diagonal Gaussian [B, *event]."""

    mean: Array
    log_std: Array

    def draw(self, key: Array, temperature: Array | float = 1.0) -> Array:
        """mean + temperature * std * noise."""
        return self.mean + temperature * jnp.exp(self.log_std) * jax.random.normal(
            key, self.mean.shape, self.mean.dtype
        )

    def log_prob(self, z: Array) -> Float[Array, " B"]:
        """Nats, summed over the event."""
        return sum_event(normal_log_prob(z, self.mean, self.log_std))


class Drawn(NamedTuple):
    """One level, drawn: z [B, ...], then nats [B] as in `Walk`."""

    z: Array
    log_prior: Float[Array, " B"]
    log_posterior: Float[Array, " B"]
    kl: Float[Array, " B"]


def draw_level(
    key: Array,
    prior: Gaussian,
    posterior: Gaussian,
    from_posterior: Bool[Array, ""] | bool = True,
    temperature: Float[Array, ""] | float = 1.0,
) -> Drawn:
    """Draws from one of two Gaussians, and says what both think of it; prior draws have the same noise."""
    mean = jnp.where(from_posterior, posterior.mean, prior.mean)
    log_std = jnp.where(from_posterior, posterior.log_std, prior.log_std)
    z = Gaussian(mean, log_std).draw(key, temperature)
    kl = sum_event(normal_kl(posterior.mean, posterior.log_std, prior.mean, prior.log_std))
    return Drawn(z, prior.log_prob(z), posterior.log_prob(z), kl)


class Objective(NamedTuple):
    """What is minimized: KL terms weighed or floored, or the importance weighted bound.

    beta: weight of the KL terms (Higgins et al. 2017, beta-VAE, equation 4)
    free_nats: the least that a level's KL, averaged over the batch, counts (Kingma et al. 2016, arXiv:1606.04934,
        equation 15: free bits)
    kl_warmup: so many training examples until the weight has grown from 0 to beta (Sønderby et al. 2016,
        arXiv:1602.02282, section 2.3); 0: at once
    samples: k of the importance weighted bound; beyond 1 the others must be at rest
    gradient: 'reparameterized', or 'doubly_reparameterized' (Tucker et al. 2019, arXiv:1810.04152)
    balance: while the KL's weight still grows, level l's part of it is weighed with gamma_l ~ KL_l / share_l, of mean 1
        over the levels, so that none is given up early (Vahdat and Kautz 2020, arXiv:2007.03898, appendix A, and the
        official code)
    free_nats_until: so many training examples until free_nats begins to fall, in a line to zero over as many again;
        0: it never does
    """

    beta: float = 1.0
    free_nats: float = 0.0
    kl_warmup: int = 0
    samples: int = 1
    gradient: str = "reparameterized"
    free_nats_until: int = 0
    balance: bool = False


def check_objective(objective: Objective, hierarchy: Hierarchy) -> None:
    """Raises ValueError for terms that exclude each other."""
    if objective.gradient not in GRADIENTS:
        raise ValueError(f"gradient={objective.gradient!r}: expected one of {', '.join(GRADIENTS)}")
    if objective.samples < 1:
        raise ValueError(f"samples={objective.samples} must be above zero")
    for name in ("beta", "free_nats", "free_nats_until", "kl_warmup"):
        if getattr(objective, name) < 0:
            raise ValueError(f"{name}={getattr(objective, name)} must not be negative")
    if objective.free_nats_until and not objective.free_nats:
        raise ValueError(f"free_nats_until={objective.free_nats_until} needs free_nats above zero")
    weighs = objective.beta != 1 or objective.free_nats or objective.kl_warmup
    if objective.balance and hierarchy.shares is None:
        raise ValueError("balance=True needs a hierarchy that states its shares")
    if objective.balance and not objective.kl_warmup:
        raise ValueError("balance=True acts while the KL's weight grows; set kl_warmup above zero")
    is_doubly = objective.gradient == "doubly_reparameterized"
    if weighs and (objective.samples > 1 or is_doubly):
        raise ValueError("samples > 1 and the doubly reparameterized gradient need beta=1, free_nats=0 and kl_warmup=0")
    if is_doubly and hierarchy.log_posterior is None:
        raise ValueError("the doubly reparameterized gradient needs a Gaussian posterior with parameters of its own")


def latent_variable(spec: Spec, hierarchy: Hierarchy, observation: Observation, objective: Objective) -> Model:
    """A model of hierarchy and observation: log p(x) is bounded from below by one draw of q.

    Metrics: nll (of one draw, or of k), kl (all levels, nats), kl_weight where there is a warm-up. Where `sample` is
    given a temperature for each level, that of the last is the observation's too.

    Raises:
      ValueError: an objective that the hierarchy does not have.
    """
    check_objective(objective, hierarchy)
    parts = Parts(spec, hierarchy, observation)
    latent = _latent(parts)

    def init(key, batch):
        key_levels, key_observation = jax.random.split(key)
        x = center(batch["x"], spec)
        h = jnp.zeros((x.shape[0], *observation.shape))
        params = {"levels": hierarchy.init(key_levels, x)}
        params["observation"] = observation.init(key_observation, h, batch["x"])
        return {"model": params}, {"examples": jnp.zeros((), jnp.int32)}

    def log_weights(params, state, key, batch, num):
        return parts.log_weights(params, key, batch, num)

    def sample(params, state, key, num, cond=None, temperature=1.0):
        if isinstance(temperature, tuple) and len(temperature) != latent.num_levels:
            raise ValueError(f"temperature has {len(temperature)} values, the latent has {latent.num_levels} levels")
        key_z, key_x = jax.random.split(key)
        temperatures = parts.per_level(temperature)
        h = hierarchy.generate(params["model"]["levels"], key_z, num, temperatures)[1]
        return observation.sample(params["model"]["observation"], key_x, h, temperatures[-1])

    def encode(params, state, key, batch):
        return latent.infer(params, state, jax.random.key(0), batch, temperature=0.0).z

    def decode(params, state, z, cond=None):
        h = hierarchy.joint(params["model"]["levels"], z)[0]
        return observation.mean(params["model"]["observation"], h)

    def log_prob(params, state, key, batch):
        return log_weights(params, state, key, batch, 1)[:, 0]

    loss = _loss(parts, objective)
    return Model(
        *(init, {"model": loss}, sample, log_prob, "lower", encode, decode), log_weights=log_weights, latent=latent
    )


class Parts(NamedTuple):
    """What a model is made of, and one draw of its latents."""

    spec: Spec
    hierarchy: Hierarchy
    observation: Observation

    def per_level(self, value) -> Array:
        """One value for each level."""
        return jnp.broadcast_to(jnp.asarray(value), (self.hierarchy.num_levels,))

    def evidence(self, params: Params, batch) -> PyTree:
        """What q needs of a batch."""
        return self.hierarchy.evidence(params["model"]["levels"], center(batch["x"], self.spec))

    def draw(self, params: Params, key: Array, e: PyTree, x: Array, from_posterior=True, temperature=1.0) -> Inference:
        """Draws all levels, given the evidence of x."""
        key_walk, key_noise = jax.random.split(key)
        arguments = self.per_level(from_posterior), self.per_level(temperature)
        w = self.hierarchy.infer(params["model"]["levels"], key_walk, e, *arguments)
        log_likelihood = self.observation.log_prob(params["model"]["observation"], w.h, x, key_noise)
        return Inference(w.z, log_likelihood, w.log_prior, w.log_posterior, w.kl)

    def log_weights(self, params: Params, key: Array, batch, num: int) -> Float[Array, "B num"]:
        """As `Model.log_weights`."""
        many = repeated((self.evidence(params, batch), batch["x"]), num)
        return log_weight(self.draw(params, key, *many)).reshape(-1, num)


def _latent(parts: Parts) -> Latent:
    hierarchy, observation = parts.hierarchy, parts.observation

    def infer(params, state, key, batch, from_posterior=True, temperature=1.0):
        return parts.draw(params, key, parts.evidence(params, batch), batch["x"], from_posterior, temperature)

    def joint(params, state, key, z, batch):
        h, log_prior = hierarchy.joint(params["model"]["levels"], z)
        return log_prior, observation.log_prob(params["model"]["observation"], h, batch["x"], key)

    def generate(params, state, key, num, temperature=1.0):
        return hierarchy.generate(params["model"]["levels"], key, num, parts.per_level(temperature))[0]

    def observe(params, state, key, z):
        h = hierarchy.joint(params["model"]["levels"], z)[0]
        return observation.sample(params["model"]["observation"], key, h, 1.0)

    return Latent(hierarchy.num_levels, infer, joint, generate, observe)


def _loss(parts: Parts, objective: Objective) -> Callable:
    warmup, until = objective.kl_warmup, objective.free_nats_until

    def elbo(params, state, key, batch):
        drawn = parts.draw(params, key, parts.evidence(params, batch), batch["x"])
        weight = objective.beta * (jnp.minimum(state["examples"] / warmup, 1) if warmup else jnp.float32(1.0))
        kl = drawn.kl.mean(1)
        floor = objective.free_nats * (jnp.clip(2 - state["examples"] / until, 0, 1) if until else 1.0)
        # without a floor not even zero is one: the KL of one draw may be negative
        floored = jnp.where(floor > 0, jnp.maximum(kl, floor), kl)
        if objective.balance and warmup:
            floored *= jnp.where(state["examples"] < warmup, balance(drawn.kl, parts.hierarchy.shares), 1.0)
        value = weight * floored.sum() - drawn.log_likelihood.mean()
        metrics = {"nll": -log_weight(drawn).mean(), "kl": kl.sum()}
        return value, metrics | ({"kl_weight": weight} if warmup else {})

    def importance_weighted(params, state, key, batch):
        nll = -log_mean_exp(parts.log_weights(params, key, batch, objective.samples)).mean()
        return nll, {"nll": nll}

    def doubly(params, state, key, batch):
        nll = -_doubly_weighted(parts, objective.samples, params, key, batch).mean()
        return nll, {"nll": nll}

    bound = importance_weighted if objective.samples > 1 else elbo
    bound = doubly if objective.gradient == "doubly_reparameterized" else bound

    def loss(params, state, key, batch):
        value, metrics = bound(params, state, key, batch)
        seen = jnp.minimum(state["examples"] + batch["x"].shape[0], max(warmup, 2 * until, 1))
        return value, (state | {"examples": seen}, metrics)

    return loss


def balance(kl: Float[Array, "L B"], shares: tuple[float, ...]) -> Float[Array, " L"]:
    """The weights of `Objective.balance`, without gradient; 0.01 nats keep a level that says nothing in play."""
    size = (jnp.abs(kl).mean(1) + 0.01) / jnp.asarray(shares, kl.dtype)
    return jax.lax.stop_gradient(size / size.mean())


def _doubly_weighted(parts, num, params, key, batch):
    hierarchy, levels = parts.hierarchy, params["model"]["levels"]
    key_walk, key_noise = jax.random.split(key)
    e, x = repeated((parts.evidence(params, batch), batch["x"]), num)
    z = hierarchy.infer(levels, key_walk, e, parts.per_level(True), parts.per_level(1.0)).z
    still, e = jax.lax.stop_gradient((levels["inference"], e))

    def log_w(params, z):
        levels = params["model"]["levels"] | {"inference": still}
        h, log_prior = hierarchy.joint(levels, z)
        log_likelihood = parts.observation.log_prob(params["model"]["observation"], h, x, key_noise)
        return (log_likelihood + (log_prior - hierarchy.log_posterior(levels, e, z)).sum(0)).reshape(-1, num)

    return doubly_reparameterized(log_w, params, z)


def log_weight(inference: Inference) -> Float[Array, " B"]:
    """log p(x, z) - log q(z | x), nats."""
    return inference.log_likelihood + (inference.log_prior - inference.log_posterior).sum(0)


def log_mean_exp(log_weights: Float[Array, "B K"]) -> Float[Array, " B"]:
    """The importance weighted bound of K draws, nats."""
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(log_weights.shape[1])


def repeated(tree: PyTree, num: int) -> PyTree:
    """Every example `num` times, one after the other: [B, ...] to [B * num, ...]."""
    return tree if num == 1 else jax.tree.map(lambda a: jnp.repeat(a, num, axis=0), tree)


def doubly_reparameterized(log_w: Callable, params: Params, z: PyTree) -> Float[Array, " B"]:
    """Log-mean-exp of log_w(params, z) [B, K], whose gradient through z has the weights squared.

    With w~ the normalized weights: d/dtheta = sum_k w~_k dlog w_k/dtheta, and d/dphi = sum_k w~_k^2 dlog w_k/dz_k
    dz_k/dphi, where log_w must not depend on phi but through z. Unbiased, and its signal does
    not vanish for large K.

    Reference: Tucker et al. (2019), Doubly reparameterized gradient estimators for Monte Carlo objectives,
    arXiv:1810.04152, equation 8.
    """

    @jax.custom_vjp
    def bound(params, z):
        return log_mean_exp(log_w(params, z))

    def forward(params, z):
        values, pull = jax.vjp(log_w, params, z)
        return log_mean_exp(values), (jax.nn.softmax(values, axis=1), pull)

    def backward(residuals, gradient):
        weights, pull = residuals
        grad_params, grad_z = pull(gradient[:, None] * weights)
        flat = weights.reshape(-1)
        return grad_params, jax.tree.map(lambda g: g * flat.reshape(-1, *(1,) * (g.ndim - 1)), grad_z)

    bound.defvjp(forward, backward)
    return bound(params, z)
