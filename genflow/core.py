"""The contracts of the house: `Bijector`, `Network`, `CausalNetwork`, `Model`, what models are made of, `Spec`.

Conventions, stated once:

* Direction: `forward` maps data `x` to latent `z`, `inverse` maps `z` to `x`; `chain(a, b)` applies `a` first.
* `log_det` is log |det d(out)/d(in)| of the function that was just called: shape [B], nats, summed over the
  event, never a mean. So the log-dets of `forward` and `inverse` add to zero.
* Batch first, always. Every function takes `cond=None` and `key=None` and may ignore them. A stochastic estimate
  happens only where a key is given; without one the evaluation is deterministic.
* Parameters are plain nested dicts of arrays. A leaf of integer dtype is a constant of the model (a fixed
  permutation, a sign): it is saved with the rest and never optimized or averaged.
* Latents are pytrees: nothing is thrown away, `decode(encode(x)) == x`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Key = Array  # a typed key, made by jax.random.key
Params = PyTree
Batch = Mapping[str, Array]  # {'x': [B, *event], and where there are such: 'label': [B], 'cond': [B, D]}


class Spec(NamedTuple):
    """What a data set is: everything that a model may know of it before it sees it."""

    name: str
    shape: tuple[int, ...]  # of one event, e.g. (32, 32, 3) or (2,)
    bins: int | None  # values are integers 0 .. bins - 1; None: continuous data
    num_classes: int = 0  # 0: no labels
    cond_dims: int = 0  # size of the condition vector that comes with an example; 0: none
    symbols: tuple[str, ...] = ()  # of text: what the values 0 .. bins - 1 stand for
    sample_rate: int = 0  # of sound, Hz: values are mu-law codes; 0: no sound
    entropy: float | None = None  # nats per event, where it is known in closed form or by quadrature
    source: str = ""
    license: str = ""

    @property
    def dims(self) -> int:
        """Number of scalars in one event."""
        return math.prod(self.shape)

    @property
    def kind(self) -> str:
        """'text', 'sound', 'images' or 'vectors'."""
        if self.symbols:
            return "text"
        return "sound" if self.sample_rate else "images" if len(self.shape) == 3 else "vectors"


class Bijector(NamedTuple):
    """An invertible map with a tractable log-determinant, as three pure functions.

    init(key, x, cond=None) -> (params, z): returns the transformed batch too, so that data-dependent
        initialization needs no flag and `repeat` initializes all its layers in one scan.
    forward(params, x, cond=None, key=None) -> (z, log_det)
    inverse(params, z, cond=None, key=None) -> (x, log_det)
    rebuild(params, z, cond=None, key=None) -> (x, vjp): x = inverse(z), and the derivative of forward at that x,
        vjp(grad_z, grad_log_det) -> (grad_params, grad_x, grad_cond), None at constants. Only where it saves work
        that inverse and forward have in common; None otherwise.
    """

    init: Callable[..., tuple[Params, PyTree]]
    forward: Callable[..., tuple[PyTree, Float[Array, " B"]]]
    inverse: Callable[..., tuple[PyTree, Float[Array, " B"]]]
    rebuild: Callable[..., tuple[PyTree, Callable]] | None = None


class Network(NamedTuple):
    """A parametric function: init(key, x, cond=None) -> params, apply(params, x, cond=None, key=None) -> output.

    Dropout happens only where a key is given.
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]


class CausalNetwork(NamedTuple):
    """A network on sites in a fixed order: its output at a site depends on the sites before it, and on cond, alone.

    A site is what is drawn at once: a gray pixel, the channels of a pixel or one of them, a sample of sound, a token.
    Sites x are integers [B, L, C], in the order in which they are drawn.

    init(key, x, cond=None) -> params
    apply(params, x, cond=None, key=None) -> raw [B, L, num_params]; dropout only where a key is given
    start(params, num, cond=None) -> cache: what `step` keeps; its size does not depend on the sites done
    step(params, cache, x, i, cond=None) -> (raw [B, num_params], cache): apply(params, x, cond)[:, i] from the sites
        before i of x [B, L, C] and the cache, for i = 0, 1, ... in order
    window: (rows, size) where apply works on any whole number of rows of `size` sites, and an output depends on its own
        row and the rows - 1 before it at most; None where it takes all L sites
    receptive_field: how many sites before its own the furthest lies that an output depends on; 0: no limit
    """

    init: Callable[..., Params]
    apply: Callable[..., Float[Array, "B L num_params"]]
    start: Callable[..., PyTree]
    step: Callable[..., tuple[Float[Array, "B num_params"], PyTree]]
    window: tuple[int, int] | None = None
    receptive_field: int = 0


class Inference(NamedTuple):
    """What one draw of every latent of a batch says, in nats; levels in the order in which they are generated."""

    z: PyTree  # leaves [B, ...]
    log_likelihood: Float[Array, " B"]  # log p(x | z)
    log_prior: Float[Array, "L B"]  # log p(z_l | z_1 .. z_(l-1))
    log_posterior: Float[Array, "L B"]  # log q(z_l | x, z_1 .. z_(l-1)), or of the order in which q draws
    kl: Float[Array, "L B"]  # KL(q || p) of a level given the others drawn, in closed form where there is one


class Latent(NamedTuple):
    """The joint density p(x, z_1 .. z_L) of a latent variable model, and its approximate posterior.

    Level 1 is generated first, furthest from the data. `from_posterior` and `temperature` have one value for each
    level, or one for all: whether z_l comes from q or from p(z_l | levels before), and what its standard deviation is
    multiplied by (0: the mode). Both may be traced.

    infer(params, state, key, batch, from_posterior=True, temperature=1.0) -> Inference
    joint(params, state, key, z, batch) -> (log_prior [L, B], log_likelihood [B]) of given latents; the key is for noise
        that the likelihood itself needs (dequantization)
    generate(params, state, key, num, temperature=1.0) -> z, drawn from the prior
    observe(params, state, key, z) -> x as `Model.sample` returns it, drawn from p(x | z)
    """

    num_levels: int
    infer: Callable[..., Inference]
    joint: Callable[..., tuple[Float[Array, "L B"], Float[Array, " B"]]]
    generate: Callable[..., PyTree]
    observe: Callable[..., Array]


class Path(NamedTuple):
    """Gaussian perturbation z_t = alpha(t) x + sigma(t) eps of scaled data: `start` is next to data, `end` noise.

    alpha, sigma: elementwise functions of times, differentiable; log-SNR 2 log(alpha / sigma) falls with t
    prior_std: z_end is taken to be N(0, prior_std^2)
    grid: where times are multiples of end / grid, as in a chain of so many steps; 0: any time
    """

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    start: float
    end: float
    prior_std: float = 1.0
    grid: int = 0


class Denoised(NamedTuple):
    """Two views of one prediction, z = alpha x + sigma noise; log_variance: of a reverse step, where it is learned."""

    x: Float[Array, "B *event"]  # E[x | z]
    noise: Float[Array, "B *event"]  # E[eps | z]
    log_variance: Array | None = None


class Diffusion(NamedTuple):
    """What a diffusion or flow matching model says of noisy data, for samplers and analyses.

    path(params) -> Path
    denoise(params, state, z, t, cond=None) -> Denoised; z [B, *event] scaled, t [] or [B]; without cond unconditional
    scale(x, key) -> (y, log_weight [B]): data to scaled data, integers dequantized (without a key: the middle of the
        bin); unscale(y) -> x as `Model.sample` returns it
    draw(params, state, key, num, cond=None, temperature=1.0, sampler='', num_steps=0, guidance=None, spacing='',
        classifier=None, known=None, progress=None) -> x: `Model.sample` with another sampler at so many times ('', 0
        and None: the model's own); classifier(z, t) -> [B] nats, log p(y | z_t) times its scale, whose gradient guides;
        known: a `samplers.diffusion.Known` of scaled data; progress(done, num) is called every few per cent
    ode_log_prob(params, state, key, batch, rtol, atol) -> ([B] nats, evaluations []): likelihood of the data by the
        probability-flow equation, dequantized where they are integers
    terms(params, state, key, batch, i) -> [B] nats: the i-th term of -log p(x)'s variational bound: 0 is the prior's, i
        = 1 .. num_terms those of the chain from the data on (the first is the decoder's); num_terms 0: a continuum
    """

    path: Callable[[Params], Path]
    denoise: Callable[..., Denoised]
    scale: Callable[..., tuple[Array, Float[Array, " B"]]]
    unscale: Callable[[Array], Array]
    draw: Callable[..., Array]
    ode_log_prob: Callable[..., tuple[Float[Array, " B"], Array]]
    terms: Callable[..., Float[Array, " B"]] | None = None
    num_terms: int = 0


class EnergyBased(NamedTuple):
    """What an energy-based model, p(x) = exp(-E(x)) / Z, has beside its energy.

    chains(params, state) -> x in data space, or its mean given the hidden units: persistent chains, or old ones
    filters(params, state) -> [N, *event]: what each hidden unit looks for, the most active first
    normalize(params, state, key) -> state with estimates of log Z at these parameters, which log_prob needs; whoever
        scores calls it once before. None: there is no log_prob, or one that needs nothing.
    log_partition(state) -> {estimator: (log Z [], standard error [])}, nats, of a normalized state; log_prob uses the
        first
    """

    chains: Callable[..., Array]
    filters: Callable[..., Array] | None = None
    normalize: Callable[..., PyTree] | None = None
    log_partition: Callable[..., dict[str, tuple[Float[Array, ""], Float[Array, ""]]]] | None = None


class Model(NamedTuple):
    """A generative model as pure functions; a capability that a family lacks is None.

    init(key, batch) -> (params, state): params is {group: tree}, state persists between steps without gradients
        (chains, buffers, running statistics).
    losses: ordered {group: (params, state, key, batch) -> (loss, (state, metrics))}; the step differentiates each
        loss with respect to its own group only. Metrics are scalars; likelihoods are in nats per example.
    sample(params, state, key, num, cond=None, temperature=1.0) -> x: [num, *event] float32 in data space
        (integer values 0 .. bins - 1 for discrete data; a diverged sample is NaN, never silently clipped).
        cond: what a conditional model is given, as in a batch: {'label': [num], 'cond': [num, D]}, whichever there are.
    log_prob(params, state, key, batch) -> [B] nats of the data itself (discrete mass or continuous density).
    bound: what log_prob is, 'exact' | 'lower' | 'average' | 'estimate' | 'none'. A draw of 'lower' has exp(log_prob) at
        most p(x) on average, so that log-mean-exp of draws bounds too; of 'average' only the mean over keys is a bound.
    encode(params, state, key, batch) -> z and decode(params, state, z, cond=None) -> x as `sample` returns it; of a
        latent variable model what q(z | x) gives without noise (temperature 0) and the mean of p(x | z), which need not
        be an integer. Without noise a Gaussian level gives its mode, given the levels drawn before; a flow gives where
        it takes the mean of its base, neither mode nor mean of q.
    energy(params, state, x, cond=None) -> [B], score(params, state, x, cond=None) -> like x.
    sample_log_prob(params, state, key, num) -> (x, [num] nats): samples and the exact log-density of each, in one pass.
    target: the unnormalized density that the model is fitted to (a `targets.Target`), which weighs its samples.
    complete(params, state, key, x, known, cond=None, temperature=1.0, top_k=0, top_p=1.0, method='cached',
        num_sites=None) -> x: draws, in the model's order, what `known` (bool, like x or broadcast to it) does not mark,
        of the first `num_sites` sites; `sample` with parts given. A diffusion model has no order, and refuses top_k,
        top_p, method and num_sites; it takes `resample` (see `samplers.diffusion.Known`) and the options of its `draw`.
    site_log_prob(params, state, key, batch) -> [B, L] nats: the terms of log_prob, log p(x_i | x_1 .. x_(i-1)), in the
        model's order; sites(x [B, *event]) -> [B, L, C] brings an event into that order.
    receptive_field: how many sites before its own the furthest lies that a term depends on; 0: no limit.
    log_weights(params, state, key, batch, num) -> [B, num] nats: independent draws of log p(x, z) - log q(z | x), the
        log-mean-exp of which bounds log p(x); log_prob is one of them.
    latent: the densities that log_weights is made of (`Latent`).
    diffusion: what a model of noisy data says of them (`Diffusion`).
    discriminate(params, state, x, cond=None) -> [B]: the logit of a GAN's discriminator, or the value of its critic,
        for x in data space; differentiable in x.
    classify(params, state, x) -> [B, K] logits of p(y | x), for x in data space, which need not be whole there;
        differentiable in x.
    energy_based: chains, filters and partition function of an energy-based model (`EnergyBased`).
    """

    init: Callable[..., tuple[dict[str, Params], PyTree]]
    losses: Mapping[str, Callable[..., tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]]]
    sample: Callable[..., Array] | None = None
    log_prob: Callable[..., Float[Array, " B"]] | None = None
    bound: str = "none"
    encode: Callable[..., PyTree] | None = None
    decode: Callable[..., Array] | None = None
    energy: Callable[..., Float[Array, " B"]] | None = None
    score: Callable[..., Array] | None = None
    sample_log_prob: Callable[..., tuple[Array, Float[Array, " B"]]] | None = None
    target: tuple | None = None
    complete: Callable[..., Array] | None = None
    site_log_prob: Callable[..., Float[Array, "B L"]] | None = None
    sites: Callable[[Array], Array] | None = None
    receptive_field: int = 0
    log_weights: Callable[..., Float[Array, "B num"]] | None = None
    latent: Latent | None = None
    diffusion: Diffusion | None = None
    discriminate: Callable[..., Float[Array, " B"]] | None = None
    classify: Callable[..., Float[Array, "B K"]] | None = None
    energy_based: EnergyBased | None = None


def sum_event(a: Float[Array, "B *event"]) -> Float[Array, " B"]:
    """Sums over every axis but the first, in float32 or wider: log-densities in bfloat16 lose whole nats.

    >>> sum_event(jnp.ones((2, 3, 3))).tolist()
    [9.0, 9.0]
    """
    return a.reshape(a.shape[0], -1).sum(1, dtype=jnp.promote_types(a.dtype, jnp.float32))


def is_trainable(leaf: Array) -> bool:
    """True for floating-point leaves; integer leaves are constants of the model."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into its trainable leaves and the rest; each half has None where the other has a leaf."""
    trainable = jax.tree.map(lambda a: a if is_trainable(a) else None, tree)
    rest = jax.tree.map(lambda a: None if is_trainable(a) else a, tree)
    return trainable, rest


def combine(trainable: PyTree, rest: PyTree) -> PyTree:
    """Undoes `partition`."""
    return jax.tree.map(lambda a, b: b if a is None else a, trainable, rest, is_leaf=lambda a: a is None)
