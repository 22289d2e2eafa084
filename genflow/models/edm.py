"""EDM: a denoiser whose network has inputs and targets of unit variance at every noise level."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from genflow.core import Model, Network, Spec, sum_event
from genflow.diffusion.bound import continuous_bound
from genflow.diffusion.path import at, karras
from genflow.diffusion.prediction import denoised
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.networks.time_mlp import FASTEST, time_mlp
from genflow.networks.unet import TIMES, unet


def edm(
    spec: Spec,
    width: int = 128,
    multipliers: tuple[int, ...] = (2, 2, 2),
    blocks: int = 4,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    dropout: float = 0.13,
    memory: str = "store",
    data_std: float = 0.5,
    noise_mean: float = -1.2,
    noise_std: float = 1.2,
    sampler: str = "heun",
    sampler_steps: int = 18,
    guidance: float = 0.0,
    spacing: str = "karras",
    likelihood: str = "ode",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """Images, with DDPM++: a U-Net that resamples in residual blocks, all skips divided by sqrt(2); or vectors.

    A perceptron of `width` and `blocks` models vectors. The paper's augmentation, of which the network is told, is left
    out.

    Args:
      data_std: sigma_data, of the scaled data.
      noise_mean, noise_std: of ln sigma in training.

    Reference: Karras et al. (2022), Elucidating the design space of diffusion-based generative models,
      arXiv:2206.00364.
    """
    if len(spec.shape) == 1:
        network, fastest = time_mlp(width, blocks)(spec.dims), FASTEST
    else:
        options = {"resample": "block", "rescale_skip": True, "memory": memory}
        architecture = unet(width, multipliers, blocks, attention, heads, dropout, **options)
        network, fastest = architecture(spec.shape[-1]), TIMES
    process = preconditioned(spec, network, data_std, noise_mean, noise_std, fastest)
    sampling = Sampling(sampler, sampler_steps, guidance, spacing)
    return diffusion(spec, process, sampling, Likelihood(likelihood, rtol, atol), conditional, drop_condition)


class Preconditioning(NamedTuple):
    """E[x | z] = skip z + out network(inside z, noise)."""

    skip: Array
    out: Array
    inside: Array
    noise: Array


def preconditioning(sigma: Array, data_std: float) -> Preconditioning:
    """c_skip, c_out, c_in and c_noise: unit variance of what the network is given and of what it should say.

    Reference: Karras et al. (2022), arXiv:2206.00364, table 1 and appendix B.6.
    """
    total = sigma**2 + data_std**2
    root = jnp.sqrt(total)
    return Preconditioning(data_std**2 / total, sigma * data_std / root, 1 / root, jnp.log(sigma) / 4)


def preconditioned(
    spec: Spec,
    network: Network,
    data_std: float = 0.5,
    noise_mean: float = -1.2,
    noise_std: float = 1.2,
    fastest: float = 1.0,
) -> Process:
    """E (sigma^2 + data_std^2) / (sigma data_std)^2 ||denoised - x||^2 a dimension.

    ln sigma ~ N(noise_mean, noise_std^2). The weight is 1 / c_out^2, so that the loss is the squared error of the
    network itself.

    Args:
      fastest: angle by which the network's embedding turns the fastest in a unit of its time; the network is told
        c_noise / fastest, so that these angles begin with c_noise as they do in the paper.

    Raises:
      ValueError: a standard deviation that is not above zero.

    Reference: Karras et al. (2022), arXiv:2206.00364, equations 7 and 8 and table 1.
    """
    if min(data_std, noise_std) <= 0:
        raise ValueError(f"data_std={data_std} and noise_std={noise_std} must be above zero")
    path = karras()

    def asked(params, z, sigma, c, key):
        """What the network says, and the coefficients, shaped like z."""
        p = preconditioning(at(path, sigma, z.ndim).sigma, data_std)
        return network.apply(params, p.inside * z, (p.noise.reshape(-1) / fastest, c), key), p

    def init(key, x, c):
        return network.init(key, x, (jnp.zeros(len(x)), c))

    def denoise(params, z, t, c=None, key=None):
        raw, p = asked(params, z, t, c, key)
        return denoised("data", p.skip * z + p.out * raw, z, at(path, t, z.ndim))

    def loss(params, state, key, x, c):
        key_level, key_noise, key = jax.random.split(key, 3)
        sigma = jnp.exp(noise_mean + noise_std * jax.random.normal(key_level, (len(x),)))
        z = x + at(path, sigma, x.ndim).sigma * jax.random.normal(key_noise, x.shape)
        raw, p = asked(params, z, sigma, c, key)
        values = sum_event((raw - (x - p.skip * z) / p.out) ** 2) / spec.dims
        return values, state, {"denoising_loss": values.mean()}

    def bound(params, state, key, x, c):
        return continuous_bound(spec, path, lambda z, t: denoise(params, z, t, c), key, x)

    return Process(init, lambda params: path, denoise, loss, bound)
