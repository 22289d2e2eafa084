"""Score-based models: stochastic differential equations that turn data into noise, and networks that know the way back.

What is learned is the score of the noisy data, grad log p_t(z) = -E[eps | z] / sigma, as the noise E[eps | z].
"""

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Path, Spec, sum_event
from genflow.diffusion.bound import continuous_bound, spread
from genflow.diffusion.path import at, log_snr, sub_vp_sde, time_of_log_snr, ve_sde, vp_sde
from genflow.diffusion.prediction import denoised
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.networks.time_mlp import time_mlp
from genflow.networks.unet import unet

WEIGHTINGS = ("sigma", "likelihood")
SAMPLES_END = 1e-3  # of VP and sub-VP, as in the official code
PATHS = {"vp": vp_sde, "sub_vp": sub_vp_sde, "ve": lambda: ve_sde(0.02, 100.0)}  # of images in [-1, 1]


def score_sde(
    spec: Spec,
    sde: str = "vp",
    weighting: str = "sigma",
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 4,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    dropout: float = 0.1,
    memory: str = "store",
    sampler: str = "reverse_sde",
    sampler_steps: int = 1000,
    guidance: float = 0.0,
    spacing: str = "linear",
    likelihood: str = "ode",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """Images, with DDPM++: a U-Net that resamples in residual blocks, all skips divided by sqrt(2); or vectors.

    A perceptron of `width` and `blocks` models vectors.

    Args:
      sde: 'vp', 'sub_vp' or 've'.
      weighting: see `score_matching`.

    Reference: Song et al. (2021), Score-based generative modeling through SDEs, arXiv:2011.13456.
    """
    if sde not in PATHS:
        raise ValueError(f"sde={sde!r}: expected one of {', '.join(PATHS)}")
    if len(spec.shape) == 1:
        network = time_mlp(width, blocks)(spec.dims)
    else:
        options = {"resample": "block", "rescale_skip": True, "memory": memory}
        network = unet(width, multipliers, blocks, attention, heads, dropout, **options)(spec.shape[-1])
    process = score_matching(spec, network, PATHS[sde](), weighting)
    # the last of many equal steps towards 1e-5 would add noise that a network told of 1e-5 cannot take off
    sampling = Sampling(sampler, sampler_steps, guidance, spacing, last=SAMPLES_END if sde != "ve" else 0.0)
    return diffusion(spec, process, sampling, Likelihood(likelihood, rtol, atol), conditional, drop_condition)


def score_matching(spec: Spec, network: Network, path: Path, weighting: str = "sigma") -> Process:
    """E lambda(t) ||network - grad log q(z_t | x)||^2 a dimension, with the score that a network of the noise gives.

    The network is given z / sqrt(alpha^2 + sigma^2), which matters for VE alone, and t.

    Args:
      weighting: 'sigma': lambda = sigma^2, t uniform, so that it is the error of the noise. 'likelihood': lambda = g^2,
        the diffusion coefficient, which makes it a bound on -log p in nats a dimension up to a constant; times are
        uniform in log-SNR, which is the density g^2 / sigma^2 that takes the weight away.

    Reference: Song et al. (2021), arXiv:2011.13456, equation 7; Song et al. (2021), Maximum likelihood training of
      score-based diffusion models, arXiv:2101.09258, equation 9 and section 5.1 on importance sampling of times.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r}: expected one of {', '.join(WEIGHTINGS)}")
    most, least = (log_snr(path, jnp.asarray(t)) for t in (path.start, path.end))

    def init(key, x, c):
        return network.init(key, x, (jnp.zeros(len(x)), c))

    def denoise(params, z, t, c=None, key=None):
        point = at(path, t, z.ndim)
        scale = jnp.sqrt(point.alpha**2 + point.sigma**2)
        return denoised("noise", network.apply(params, z / scale, (t, c), key), z, point)

    def times(fraction):
        if weighting == "likelihood":
            return time_of_log_snr(path, most + (least - most) * fraction), 0.5 * (most - least)
        return path.start + (path.end - path.start) * fraction, 1.0

    def loss(params, state, key, x, c):
        key_time, key_noise, key = jax.random.split(key, 3)
        t, scale = times(spread(key_time, len(x)))
        noise, point = jax.random.normal(key_noise, x.shape), at(path, t, x.ndim)
        error = noise - denoise(params, point.alpha * x + point.sigma * noise, t, c, key).noise
        values = scale * sum_event(error**2) / spec.dims
        return values, state, {"score_loss": values.mean()}

    def bound(params, state, key, x, c):
        return continuous_bound(spec, path, lambda z, t: denoise(params, z, t, c), key, x)

    return Process(init, lambda params: path, denoise, loss, bound)
