"""Flow matching: a velocity field that carries data to noise along given paths."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec, sum_event
from genflow.diffusion.bound import continuous_bound, spread
from genflow.diffusion.path import at, linear_interpolant
from genflow.diffusion.prediction import denoised, target
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.networks.time_mlp import time_mlp


def flow_matching(
    spec: Spec,
    width: int = 256,
    blocks: int = 3,
    sampler: str = "ddim",
    sampler_steps: int = 50,
    guidance: float = 0.0,
    likelihood: str = "ode",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """E || v(z_t, t) - (eps - x) ||^2 with z_t = (1 - t) x + t eps, t uniform.

    Time runs from data to noise, as everywhere here; the paper's runs the other way.

    Reference: Lipman et al. (2023), Flow matching for generative modeling, arXiv:2210.02747, equation 23.
    """
    if len(spec.shape) != 1:
        raise ValueError(f"models vectors; {spec.name} has shape {spec.shape}")
    network, path = time_mlp(width, blocks)(spec.dims), linear_interpolant()

    def init(key, x, c):
        return network.init(key, x, (jnp.zeros(len(x)), c))

    def denoise(params, z, t, c=None, key=None):
        return denoised("velocity", network.apply(params, z, (t, c), key), z, at(path, t, z.ndim))

    def loss(params, state, key, x, c):
        key_time, key_noise, key = jax.random.split(key, 3)
        t = path.start + (path.end - path.start) * spread(key_time, len(x))
        noise, point = jax.random.normal(key_noise, x.shape), at(path, t, x.ndim)
        raw = network.apply(params, point.alpha * x + point.sigma * noise, (t, c), key)
        values = sum_event((raw - target("velocity", x, noise, point)) ** 2)
        return values, state, {"matching_loss": values.mean()}

    def bound(params, state, key, x, c):
        return continuous_bound(spec, path, lambda z, t: denoise(params, z, t, c), key, x)

    process = Process(init, lambda params: path, denoise, loss, bound)
    sampling = Sampling(sampler, sampler_steps, guidance)
    return diffusion(spec, process, sampling, Likelihood(likelihood, rtol, atol), conditional, drop_condition)
