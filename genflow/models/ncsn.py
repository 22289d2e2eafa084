"""Noise conditional score networks: one network for the score of data at each rung of a ladder of noise levels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genflow.core import Model, Network, Path, Spec, sum_event
from genflow.diffusion.path import at, ve_sde
from genflow.diffusion.prediction import denoised
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.networks.refinenet import refinenet

OBJECTIVES = ("denoising", "sliced")
PREDICTIONS = ("score", "noise")


def ncsn(
    spec: Spec,
    levels: int = 10,
    sigma_min: float = 0.02,
    sigma_max: float = 2.0,
    objective: str = "denoising",
    projections: int = 1,
    prediction: str = "score",
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    dilations: tuple[int, ...] = (1, 1, 2, 4),
    blocks: int = 2,
    sampler: str = "annealed_langevin",
    sampler_steps: int = 10,
    spacing: str = "linear",
) -> Model:
    """Images, with a RefineNet that is told the level; drawn by annealed Langevin dynamics.

    There is no log_prob, `encode` or `decode`: an equation in time would ask the network between the levels that it was
    trained on.

    Args:
      levels: of noise.
      sigma_min, sigma_max: of data in [-1, 1], in which the paper's 0.01 and 1, of data in [0, 1], are twice that.
      objective, projections: see `noise_conditional`.
      prediction: what the network says: 'score', as in the paper, or 'noise', which is -sigma times that: the scale of
        the scores is then not for the network to learn (Song and Ermon 2020, arXiv:2006.09011, technique 3).
      width, multipliers, dilations, blocks: see `networks.refinenet`.
      sampler_steps: times of a sampler, at most `levels`.

    Reference: Song and Ermon (2019), Generative modeling by estimating gradients of the data distribution,
      arXiv:1907.05600.
    """
    if spec.kind != "images":
        raise ValueError(f"models images; {spec.name} has shape {spec.shape}")
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction={prediction!r}: expected one of {', '.join(PREDICTIONS)}")
    if sampler_steps > levels:
        raise ValueError(f"sampler_steps={sampler_steps}: there are levels={levels}")
    path = noise_ladder(sigma_min, sigma_max, levels)
    network = refinenet(levels, width, multipliers, dilations, blocks)(spec.shape[-1])
    process = noise_conditional(network, path, objective, projections, prediction)
    sampling = Sampling(sampler, sampler_steps, spacing=spacing)
    model = diffusion(spec, process, sampling, Likelihood("ode"))

    def score(params, state, x, cond=None):
        z, pull = jax.vjp(lambda x: model.diffusion.scale(x)[0], x.astype(jnp.float32))
        noise = model.diffusion.denoise(params, state, z, jnp.asarray(path.start)).noise
        return pull(-noise / sigma_min)[0]

    return model._replace(log_prob=None, bound="none", encode=None, decode=None, score=score)


def noise_ladder(sigma_min: float, sigma_max: float, levels: int) -> Path:
    """alpha = 1, and sigma in geometric progression at the times i / levels, from sigma_min at i = 1 to sigma_max.

    Raises:
      ValueError: fewer than two levels, or levels that do not rise.

    Reference: Song and Ermon (2019), arXiv:1907.05600, section 4.1, where level 1 is the noisiest.
    """
    if levels < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"levels={levels} from sigma_min={sigma_min} to sigma_max={sigma_max}: expected two or more")
    ladder = ve_sde(sigma_min, sigma_max)
    return ladder._replace(
        sigma=lambda t: ladder.sigma((levels * t - 1) / (levels - 1)), start=1.0 / levels, grid=levels
    )


def noise_conditional(
    network: Network, path: Path, objective: str = "denoising", projections: int = 1, prediction: str = "score"
) -> Process:
    """The mean over levels of sigma^2 times the score matching objective of data with so much noise.

    Args:
      path: with a grid, the times of which are the levels, each as likely as any other.
      objective: 'denoising', half the squared error of the score of the noise that was added; or 'sliced', which does
        not ask how the noisy data came about. They differ by a constant, on average.
      projections: of 'sliced', each a derivative of the network.

    Reference: Song and Ermon (2019), arXiv:1907.05600, equations 5 and 6 with lambda = sigma^2; sliced in section 3.1.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective={objective!r}: expected one of {', '.join(OBJECTIVES)}")
    if projections < 1:
        raise ValueError(f"projections={projections}: expected 1 or more")

    def init(key, x, c):
        return network.init(key, x, (jnp.ones(len(x)), c))

    def denoise(params, z, t, c=None, key=None):
        return denoised(prediction, network.apply(params, z, (t, c), key), z, at(path, t, z.ndim))

    def loss(params, state, key, x, c):
        key_level, key_noise, key = jax.random.split(key, 3)
        first = round(path.start * path.grid)
        t = jax.random.randint(key_level, (len(x),), first, path.grid + 1) / path.grid
        noise, sigma = jax.random.normal(key_noise, x.shape), at(path, t, x.ndim).sigma
        z = x + sigma * noise
        if objective == "denoising":
            values = 0.5 * sum_event((denoise(params, z, t, c, key).noise - noise) ** 2)
        else:
            directions = jax.random.normal(key, (projections, *x.shape))
            matched = sliced_score_matching(lambda z: -denoise(params, z, t, c).noise / sigma, z, directions)
            values = sigma.reshape(-1) ** 2 * matched
        return values, state, {f"{objective}_loss": values.mean()}

    return Process(init, lambda params: path, denoise, loss)


def sliced_score_matching(score, z: Float[Array, "B *event"], directions: Float[Array, "P B *event"]) -> Array:
    """||s||^2 / 2 + v^T (ds/dz) v, averaged over the directions v: [B], with reduced variance.

    On average over z ~ q and over v, with E[v v^T] = I, it is E ||s - grad log q||^2 / 2 - E ||grad log q||^2 / 2.

    Args:
      score: z -> like z, each example on its own; differentiated in reverse mode.

    Reference: Song et al. (2019), Sliced score matching, arXiv:1905.07088, section 3 (SSM-VR).
    """
    s, pull = jax.vjp(score, z)
    curvature = jax.vmap(lambda v: sum_event(pull(v)[0] * v))(directions)
    return 0.5 * sum_event(s**2) + curvature.mean(0)
