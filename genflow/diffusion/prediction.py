"""What a network may predict, each as good as any other: the noise, the data, v, the velocity or the score."""

from jaxtyping import Array

from genflow.core import Denoised
from genflow.diffusion.path import Point

PREDICTIONS = ("noise", "data", "v", "velocity", "score")


def denoised(prediction: str, raw: Array, z: Array, point: Point) -> Denoised:
    """The data and the noise that a prediction says, tied by z = alpha x + sigma noise.

    'v' is alpha noise - sigma x (Salimans and Ho 2022, arXiv:2202.00512, appendix D), 'velocity' d alpha/dt x +
    d sigma/dt noise, the rate of z along the path, 'score' -noise / sigma.
    """
    a, s, da, ds = point
    if prediction == "data":
        return Denoised(raw, (z - a * raw) / s)
    if prediction == "v":
        norm = a**2 + s**2
        return Denoised((a * z - s * raw) / norm, (s * z + a * raw) / norm)
    if prediction == "velocity":
        norm = a * ds - s * da  # positive, as the log-SNR falls
        return Denoised((ds * z - s * raw) / norm, (a * raw - da * z) / norm)
    noise = -s * raw if prediction == "score" else raw
    return Denoised((z - s * noise) / a, noise)


def target(prediction: str, x: Array, noise: Array, point: Point) -> Array:
    """What the network should have said of z = alpha x + sigma noise; undoes `denoised`."""
    a, s, da, ds = point
    if prediction == "data":
        return x
    if prediction == "v":
        return a * noise - s * x
    if prediction == "velocity":
        return da * x + ds * noise
    return -noise / s if prediction == "score" else noise
