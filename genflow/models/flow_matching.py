"""Flow matching: a velocity field that carries data to noise along given paths."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Network, Path, Spec, sum_event
from genflow.diffusion.bound import continuous_bound, spread
from genflow.diffusion.interpolants import INTERPOLANTS, optimal_transport, with_latent_noise
from genflow.diffusion.path import at
from genflow.diffusion.prediction import denoised, target
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.networks.time_mlp import time_mlp
from genflow.networks.unet import unet
from genflow.samplers.diffusion import SAMPLERS

COUPLINGS = ("independent", "optimal_transport")


def flow_matching(
    spec: Spec,
    path: str = "linear",
    latent_noise: float = 0.0,
    coupling: str = "independent",
    width: int = 256,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 4,
    dropout: float = 0.0,
    memory: str = "store",
    sampler: str = "ddim",
    sampler_steps: int = 50,
    guidance: float = 0.0,
    spacing: str = "linear",
    likelihood: str = "ode",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    conditional: bool = False,
    drop_condition: float = 0.0,
) -> Model:
    """Images, with a U-Net as in ADM: it resamples in residual blocks, which the time scales and shifts; or vectors.

    A perceptron of `width` and `blocks` models vectors.

    Args:
      path: 'linear', conditional optimal transport, or 'trigonometric'.
      latent_noise: see `with_latent_noise`; 0: none.
      coupling: see `matching`. With 'optimal_transport' the noise depends on the data, and what the network says is no
        score: samplers must add no noise, and the likelihood is that of the probability-flow equation.

    Reference: Lipman et al. (2023), Flow matching for generative modeling, arXiv:2210.02747.
    """
    if path not in INTERPOLANTS:
        raise ValueError(f"path={path!r}: expected one of {', '.join(INTERPOLANTS)}")
    if len(spec.shape) == 1:
        network = time_mlp(width, blocks)(spec.dims)
    else:
        options = {"scale_shift": True, "resample": "block", "memory": memory}
        network = unet(width, multipliers, blocks, attention, heads, dropout, **options)(spec.shape[-1])
    process = matching(spec, network, with_latent_noise(INTERPOLANTS[path](), latent_noise), coupling)
    if coupling == "optimal_transport":
        _check_deterministic(sampler, likelihood)
        if conditional:
            fault = (
                "coupling='optimal_transport' hands each class noise of its own, which is not what samples begin with"
            )
            raise ValueError(f"{fault}; take coupling='independent' for conditional=True")
    sampling = Sampling(sampler, sampler_steps, guidance, spacing)
    return diffusion(spec, process, sampling, Likelihood(likelihood, rtol, atol), conditional, drop_condition)


def matching(spec: Spec, network: Network, path: Path, coupling: str = "independent") -> Process:
    """E ||v(z_t, t) - (alpha' x + sigma' eps)||^2 with z_t = alpha x + sigma eps, t uniform (evenly spread in a batch).

    Time runs from data to noise, as everywhere here; the papers' runs the other way.

    Args:
      coupling: 'independent', or 'optimal_transport': the batch's noise is handed out such that the squared distances
        to its data are least. An example's condition stays with it.

    Reference: Lipman et al. (2023), arXiv:2210.02747, equation 14, for straight paths 23; Tong et al. (2023),
      arXiv:2302.00482, section 3.2 (couplings); Albergo et al. (2023), arXiv:2303.08797 (other paths).
    """
    if coupling not in COUPLINGS:
        raise ValueError(f"coupling={coupling!r}: expected one of {', '.join(COUPLINGS)}")

    def init(key, x, c):
        return network.init(key, x, (jnp.zeros(len(x)), c))

    def denoise(params, z, t, c=None, key=None):
        return denoised("velocity", network.apply(params, z, (t, c), key), z, at(path, t, z.ndim))

    def loss(params, state, key, x, c):
        key_time, key_noise, key = jax.random.split(key, 3)
        t = path.start + (path.end - path.start) * spread(key_time, len(x))
        noise, point = jax.random.normal(key_noise, x.shape), at(path, t, x.ndim)
        if coupling == "optimal_transport":
            noise = optimal_transport(x, noise)
        raw = network.apply(params, point.alpha * x + point.sigma * noise, (t, c), key)
        values = sum_event((raw - target("velocity", x, noise, point)) ** 2)
        return values, state, {"matching_loss": values.mean()}

    def bound(params, state, key, x, c):
        return continuous_bound(spec, path, lambda z, t: denoise(params, z, t, c), key, x)

    return Process(init, lambda params: path, denoise, loss, bound, has_score=coupling == "independent")


def _check_deterministic(sampler, likelihood):
    if sampler in SAMPLERS and SAMPLERS[sampler]().random:
        deterministic = ", ".join(name for name, build in SAMPLERS.items() if not build().random)
        fault = f"coupling='optimal_transport' teaches no score, of which sampler={sampler!r} makes use"
        raise ValueError(f"{fault}; take one of {deterministic}")
    if likelihood == "bound":
        raise ValueError("coupling='optimal_transport' needs likelihood='ode': the bound is of noise of its own")
