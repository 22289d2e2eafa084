"""Guidance: what a network expects, pushed towards a class."""

from jaxtyping import Array

from genflow.core import Denoised, Path
from genflow.diffusion.path import at
from genflow.diffusion.prediction import denoised


def guided(conditional: Denoised, unconditional: Denoised, path: Path, z: Array, t: Array, weight: float) -> Denoised:
    """(1 + w) conditional - w unconditional, of the noise and so of the data too.

    Reference: Ho and Salimans (2022), Classifier-free diffusion guidance, arXiv:2207.12598, equation 6.
    """
    noise = (1 + weight) * conditional.noise - weight * unconditional.noise
    return denoised("noise", noise, z, at(path, t, z.ndim))._replace(log_variance=conditional.log_variance)
