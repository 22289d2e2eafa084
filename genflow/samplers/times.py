"""When a sampler stops on its way from noise to data: four ways to space its times."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Path
from genflow.diffusion.path import log_snr, time_of_log_snr

RHO = 7  # of `karras`


def spaced_times(path: Path, num: int, spacing: str = "linear") -> Float[Array, " num"]:
    """`num` falling times from the path's end to its start; on the grid where there is one, all of them different.

    Raises:
      ValueError: an unknown spacing, fewer than two times, or more than the grid has.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing={spacing!r}: expected one of {', '.join(SPACINGS)}")
    if num < 2:
        raise ValueError(f"{num} times: expected 2 or more")
    times = jnp.asarray(SPACINGS[spacing](path, np.linspace(1.0, 0.0, num)), jnp.float32)
    times = times.at[0].set(path.end).at[-1].set(path.start)
    return _on_grid(path, times) if path.grid else times


def _on_grid(path, times):
    """The nearest multiples of end / grid, moved apart where two of them are the same."""
    first, after = round(path.start * path.grid / path.end), np.arange(len(times))
    if len(times) > path.grid - first + 1:
        raise ValueError(f"{len(times)} times: this path has only {path.grid - first + 1}")
    nearest = jnp.round(times * path.grid / path.end).astype(jnp.int32)
    falling = jax.lax.cummin(nearest + after) - after
    chosen = jnp.maximum(falling, first + after[::-1])
    return jnp.asarray(np.arange(path.grid + 1) * path.end / path.grid, jnp.float32)[chosen]


def _linear(path, left):
    return path.start + (path.end - path.start) * left


def _quadratic(path, left):
    """Reference: Song et al. (2021), Denoising diffusion implicit models, arXiv:2010.02502, appendix D.2."""
    return path.start + (path.end - path.start) * left**2


def _log_snr(path, left):
    """Reference: Lu et al. (2022), DPM-Solver, arXiv:2206.00927, section 3.4."""
    least, most = (log_snr(path, jnp.asarray(t, jnp.float32)) for t in (path.end, path.start))
    return time_of_log_snr(path, most + (least - most) * left)


def _karras(path, left):
    """Even in (sigma / alpha)^(1 / 7).

    Reference: Karras et al. (2022), Elucidating the design space of diffusion-based generative models,
      arXiv:2206.00364, equation 5.
    """
    most, least = (jnp.exp(-0.5 / RHO * log_snr(path, jnp.asarray(t, jnp.float32))) for t in (path.end, path.start))
    return time_of_log_snr(path, -2.0 * RHO * jnp.log(least + (most - least) * left))


SPACINGS = {"linear": _linear, "quadratic": _quadratic, "log_snr": _log_snr, "karras": _karras}
