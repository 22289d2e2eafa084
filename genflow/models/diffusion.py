"""What all diffusion models share: a family says how its network denoises and what it is trained for.

Data are scaled to [-1, 1] (`dequantize.centered`). A condition is a vector [B, C] (`flow.conditioning`); zeros stand
for none, to which it is dropped in training so that guidance has an unconditional model too.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from genflow.bijectors.continuous import every_direction, one_direction
from genflow.core import Batch, Denoised, Diffusion, Model, Params, Path, Spec, sum_event
from genflow.dequantize import Dequantizer, centered
from genflow.diffusion.guidance import classifier_free, classifier_guided
from genflow.diffusion.transport import transport, transport_with_log_det
from genflow.distributions import normal_log_prob
from genflow.models.flow import conditioning, draw_condition
from genflow.samplers import diffusion as samplers
from genflow.samplers.steps import NO_VARIANCE

EXACT_DIMS = 16  # of data whose divergence is exact
RESAMPLE = 4  # of a completion: how often each step is taken
MOST_TIMES = 100  # of a completion, unless it is asked for more
LIKELIHOODS = ("bound", "ode")
NO_SCORE = (
    "this model was taught no score (coupling='optimal_transport'): samplers that add noise, guidance by a classifier "
    "and completions have nothing to go by; take --sampler=ddim, dpm_solver_pp_2m, heun or probability_flow"
)


class Process(NamedTuple):
    """A family of diffusion models, without data and conditions. x is scaled, c [B, C] or None.

    init(key, x, c) -> params
    path(params) -> Path
    denoise(params, z, t [B], c=None, key=None) -> Denoised; dropout only where a key is given
    loss(params, state, key, x, c) -> (loss [B], state, metrics): 'nll' among them where the loss comes with a bound
    bound(params, state, key, x, c) -> [B] nats, on average over keys at least -log of the mass or density of scaled x
    state: what `init` of the model starts with
    terms, num_terms: see `core.Diffusion`, as terms(params, key, x, c, i)
    has_score: False where the network says a velocity that belongs to no score: samplers that add noise, guidance by a
        classifier and inpainting have nothing to go by
    """

    init: Callable[..., Params]
    path: Callable[[Params], Path]
    denoise: Callable[..., Denoised]
    loss: Callable[..., tuple[Float[Array, " B"], PyTree, dict]]
    bound: Callable[..., Float[Array, " B"]] | None = None
    state: PyTree = {}
    terms: Callable[..., Float[Array, " B"]] | None = None
    num_terms: int = 0
    has_score: bool = True


class Sampling(NamedTuple):
    """How a model draws unless it is asked for something else."""

    sampler: str = "ddim"
    num_steps: int = 50
    guidance: float = 0.0  # w of (1 + w) conditional - w unconditional; 0: the conditional model
    spacing: str = "linear"  # of the times: one of `samplers.SPACINGS`
    last: float = 0.0  # time at which steps end and what noise is left is taken off, unless the path's start is later


class Likelihood(NamedTuple):
    """What log_prob is: the variational bound or the probability-flow equation, with its tolerances."""

    by: str = "bound"
    rtol: float = 1e-5
    atol: float = 1e-5


def diffusion(
    spec: Spec,
    process: Process,
    sampling: Sampling,
    likelihood: Likelihood,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """A model of any family.

    Args:
      drop_condition: probability with which a training example loses its condition.

    Raises:
      ValueError: conditional, but the data have neither labels nor condition vectors; a choice that does not exist.
    """
    _check(sampling, likelihood, conditional, drop_condition)
    view, exact = _view(spec, process, conditional), spec.dims <= EXACT_DIMS
    _check_network(spec, process, view, sampling.sampler)

    def init(key, batch):
        return {"model": process.init(key, view.scaled(batch), view.condition(batch))}, process.state

    def loss(params, state, key, batch):
        c = view.condition(batch)
        if drop_condition:
            key, key_drop = jax.random.split(key)
            c = c * jax.random.bernoulli(key_drop, 1 - drop_condition, (len(c), 1))
        values, state, metrics = process.loss(params["model"], state, key, view.scaled(batch), c)
        return values.mean(), (state, metrics)

    def bound(params, state, key, batch):
        key = jax.random.key(0) if key is None else key
        return -process.bound(params["model"], state, key, view.scaled(batch), view.condition(batch))

    def terms(params, state, key, batch, i):
        return process.terms(params["model"], key, view.scaled(batch), view.condition(batch), i)

    encode, decode, ode_log_prob = _by_ode(spec, process, view, likelihood)
    sample, complete = _sample(spec, process, view, sampling, drop_condition)
    by_ode = likelihood.by == "ode"
    kind = ("exact" if spec.bins is None else "lower") if exact else "estimate"
    return Model(
        init,
        {"model": loss},
        sample,
        (lambda *arguments: ode_log_prob(*arguments)[0]) if by_ode else bound,
        kind if by_ode else "average",
        encode,
        decode,
        complete=complete if process.has_score else None,
        diffusion=Diffusion(
            view.path,
            view.denoise,
            lambda x, key=None: view.noise.forward({}, x, None, key),
            view.noise.inverse,
            sample,
            ode_log_prob,
            terms if process.terms else None,
            process.num_terms,
        ),
    )


class _View(NamedTuple):
    """A process as models and samplers see it: parameters of the model, batches of data."""

    noise: Dequantizer
    condition: Callable[[Batch], Array | None]
    nothing: Callable[[int], Array | None]  # no condition, for so many examples
    drawn_condition: Callable[..., Array | None]  # (key, num, cond): what is not given of it is drawn
    scaled: Callable[..., Array]
    path: Callable[[Params], Path]
    denoise: Callable[..., Denoised]


def _view(spec, process, conditional):
    noise, condition = centered(spec), conditioning(spec, conditional)

    def nothing(num):
        return jnp.zeros((num, spec.num_classes + spec.cond_dims)) if conditional else None

    def drawn_condition(key, num, cond):
        return condition(draw_condition(spec, key, num) | dict(cond or {})) if conditional else None

    def scaled(batch, key=None):
        return noise.forward({}, batch["x"], None, key)[0].astype(jnp.float32)

    def denoise(params, state, z, t, cond=None):
        c = condition(cond) if cond else nothing(len(z))
        return process.denoise(params["model"], z, jnp.broadcast_to(t, z.shape[:1]), c)

    def path(params):
        return process.path(params["model"])

    return _View(noise, condition, nothing, drawn_condition, scaled, path, denoise)


def _sample(spec, process, view, sampling, drop_condition):
    """Model.sample and Model.complete, with any sampler."""

    def sample(
        params,
        state,
        key,
        num,
        cond=None,
        temperature=1.0,
        sampler="",
        num_steps=0,
        guidance=None,
        spacing="",
        classifier=None,
        known=None,
        progress=None,
    ):
        key_cond, key_noise, key = jax.random.split(key, 3)
        c = view.drawn_condition(key_cond, num, cond)
        weight = sampling.guidance if guidance is None else guidance
        _check_use(temperature, weight, c is not None, drop_condition)
        path, sampler = view.path(params), samplers.chosen(sampler or sampling.sampler)
        path = path._replace(start=max(path.start, sampling.last))
        if not process.has_score and (sampler.random or classifier or known):
            raise ValueError(NO_SCORE)
        times = samplers.spaced_times(path, num_steps or sampling.num_steps, spacing or sampling.spacing)
        z = temperature * path.prior_std * jax.random.normal(key_noise, (num, *spec.shape))

        def conditional(z, t, c=c):
            return process.denoise(params["model"], z, jnp.broadcast_to(t, z.shape[:1]), c)

        denoise = classifier_free(conditional, c, weight) if weight else conditional
        denoise = classifier_guided(denoise, path, classifier) if classifier else denoise
        return view.noise.inverse(samplers.draw(sampler, denoise, path, times, key, z, temperature, known, progress))

    def complete(
        params,
        state,
        key,
        x,
        known,
        cond=None,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        method="cached",
        num_sites=None,
        resample=RESAMPLE,
        **how,
    ):
        if top_k or top_p < 1 or method != "cached" or num_sites is not None:
            raise ValueError("top_k, top_p, method and num_sites are for models that draw sites in order")
        if resample < 1:
            raise ValueError(f"resample={resample}: expected 1 or more")
        given = samplers.Known(view.scaled({"x": x}), jnp.broadcast_to(known, x.shape), resample)
        how = {"num_steps": min(sampling.num_steps, MOST_TIMES)} | {k: v for k, v in how.items() if v}
        drawn = sample(params, state, key, len(x), cond, temperature, known=given, **how)
        return jnp.where(given.mask, x, drawn).astype(jnp.float32)

    return sample, complete


def _by_ode(spec, process, view, likelihood):
    """encode, decode and likelihood by the probability-flow equation."""

    def path_of(arguments):
        return process.path(arguments[0])

    def denoise(arguments, z, t):
        return process.denoise(arguments[0], z, jnp.broadcast_to(t, z.shape[:1]), arguments[1])

    def carried(params, c, z, forth):
        path = view.path(params)
        times = (path.start, path.end) if forth else (path.end, path.start)
        return transport(path_of, denoise, (params["model"], c), z, times, likelihood.rtol, likelihood.atol)[0]

    def encode(params, state, key, batch):
        return carried(params, view.condition(batch), view.scaled(batch, key), True)

    def decode(params, state, z, cond=None):
        return view.noise.inverse(carried(params, view.condition(cond or {}), z, False))

    def log_prob(params, state, key, batch, rtol=likelihood.rtol, atol=likelihood.atol):
        # two keys: of one, the signs of the probe would be those of the noise, and the trace biased
        key_noise, key_probe = (None, None) if key is None else jax.random.split(key)
        y, log_weight = view.noise.forward({}, batch["x"], None, key_noise)
        path, probes = view.path(params), (every_direction if spec.dims <= EXACT_DIMS else one_direction)(y, key_probe)
        arguments, times = (params["model"], view.condition(batch)), (path.start, path.end)
        z, log_det, calls = transport_with_log_det(path_of, denoise, arguments, y, times, probes, rtol, atol)
        return sum_event(normal_log_prob(z, 0.0, jnp.log(path.prior_std))) + log_det + log_weight, calls

    return encode, decode, log_prob


def _check(sampling, likelihood, conditional, drop_condition):
    for name, value, known in (
        ("likelihood", likelihood.by, LIKELIHOODS),
        ("sampler", sampling.sampler, samplers.SAMPLERS),
        ("spacing", sampling.spacing, samplers.SPACINGS),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if not 0 <= drop_condition < 1:
        raise ValueError(f"drop_condition={drop_condition} is a probability below 1")
    for name, value in (("rtol", likelihood.rtol), ("atol", likelihood.atol)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be above zero and finite")
    if not math.isfinite(sampling.guidance):
        raise ValueError(f"guidance={sampling.guidance} must be finite")
    if (drop_condition or sampling.guidance) and not conditional:
        raise ValueError("drop_condition and guidance need conditional=True")
    if sampling.guidance and not drop_condition:
        raise ValueError(
            f"guidance={sampling.guidance} needs a model that was trained without conditions too: drop_condition"
        )
    if sampling.num_steps < 2:
        raise ValueError(f"sampler_steps={sampling.num_steps}: expected 2 or more")


def _check_network(spec, process, view, sampler):
    """Of shapes alone: whether the network takes such data, and says a variance where the sampler asks for one."""

    def variance(key):
        z, c = jnp.zeros((2, *spec.shape)), view.nothing(2)
        return process.denoise(process.init(key, z, c), z, jnp.ones(2), c).log_variance

    if jax.eval_shape(variance, jax.random.key(0)) is None and sampler == "ancestral_learned":
        raise ValueError(NO_VARIANCE)


def _check_use(temperature, weight, conditional, drop_condition):
    if isinstance(temperature, tuple):
        raise ValueError("a diffusion model has one temperature")
    if weight and not (conditional and drop_condition):
        raise ValueError(
            f"guidance={weight} needs a model that was trained with and without conditions: conditional=True and "
            "drop_condition"
        )
