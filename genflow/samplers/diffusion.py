"""The loop of every sampler of diffusion models: steps from noise to data, whole or around what is known.

`steps` has the samplers, `times` where they stop. The loop ends at the path's start with what the network expects of
the data: (number of times - 1) * calls a step + 1 network calls, all of them compiled once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from genflow.core import Key, Path
from genflow.diffusion.path import diffuse
from genflow.samplers.steps import SAMPLERS, Denoise, Sampler, renoise
from genflow.samplers.times import SPACINGS, spaced_times

__all__ = ["SAMPLERS", "SPACINGS", "Denoise", "Known", "Sampler", "chosen", "draw", "spaced_times"]
REPORTS = 50  # of a loop's progress


class Known(NamedTuple):
    """What is given of the data: where `mask` is True, z is replaced by the noised x after every step.

    That alone is not exact: the rest of z was drawn without a look at x. Taking each step `resample` times, with a step
    of noise between, lets the two parts agree; the conditional distribution is reached as steps grow small and
    `resample` large.

    Reference: Song et al. (2021), arXiv:2011.13456, appendix I.2 (replacement); Lugmayr et al. (2022), RePaint,
      arXiv:2201.09865, algorithm 1 with jumps of one step.
    """

    x: Float[Array, "B *event"]
    mask: Bool[Array, "*event"]
    resample: int = 1


def chosen(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
      ValueError: there is none.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name!r}: expected one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]()


def draw(
    sampler: Sampler,
    denoise: Denoise,
    path: Path,
    times: Float[Array, " N"],
    key: Key,
    z: Float[Array, "B *event"],
    temperature: float | Array = 1.0,
    known: Known | None = None,
    progress: Callable[[Int, int], None] | None = None,
) -> Float[Array, "B *event"]:
    """Walks z from times[0] down to times[-1] and denoises it there.

    Args:
      known: what the result agrees with.
      progress: called on the host with the number of steps done and of all, every few per cent.
    """
    step = sampler.step if known is None else _around(sampler, known)
    num_steps = len(times) - 1

    def one(carry, inputs):
        z, memory = carry
        i, t, s, key = inputs
        if progress is not None:
            _report(progress, i + 1, num_steps)
        return step(denoise, path, key, z, t, s, memory, temperature), None

    keys = jax.random.split(key, num_steps)
    start = (z, sampler.start(z, len(times)))
    (z, _), _ = jax.lax.scan(one, start, (jnp.arange(num_steps), times[:-1], times[1:], keys))
    x = denoise(z, times[-1]).x
    return x if known is None else jnp.where(known.mask, known.x, x)


def _around(sampler, known):
    """The step, after which z is what is known where that is; repeated from a little more noise.

    No step remembers the one before it: fresh noise lies between them.
    """

    def whole(denoise, path, key, z, t, s, memory, temperature):
        def once(z, inputs):
            i, key = inputs
            key_back, key_step, key_noise = jax.random.split(key, 3)
            z = jnp.where(i == 0, z, renoise(path, key_back, z, s, t, temperature))
            z, _ = sampler.step(denoise, path, key_step, z, t, s, memory, temperature)
            noise = temperature * jax.random.normal(key_noise, z.shape)
            return jnp.where(known.mask, diffuse(path, s, known.x, noise), z), None

        keys = jax.random.split(key, known.resample)
        return jax.lax.scan(once, z, (jnp.arange(known.resample), keys))[0], memory

    return whole


def _report(progress, done, num):
    every = max(num // REPORTS, 1)
    report = lambda: jax.debug.callback(lambda done: progress(int(done), num), done)  # noqa: E731
    jax.lax.cond((done % every == 0) | (done == num), report, lambda: None)
