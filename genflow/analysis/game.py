"""What a model on the line says, and the discriminator that it may have, next to the density of its data."""

import functools

import jax
import numpy as np
from jaxtyping import Float

from genflow.core import Params
from genflow.data.densities import DENSITIES
from genflow.evaluate import nonfinite, sampler
from genflow.experiment import Experiment
from genflow.report.game import Scene

CELLS = 200  # of the interval that is shown
SAMPLES = 50_000
SMOOTHED = 2.0  # standard deviation, cells, of the kernel by which samples become a density
EXAMPLES = 10_000  # of the test part
LOGITS = ("minimax", "non_saturating")  # losses under which the discriminator says a logit
compiled = functools.lru_cache(maxsize=4)(jax.jit)


def scene_of(experiment: Experiment, params: Params, state, step: int) -> Scene:
    """The densities of data and of samples, and what the discriminator says, on one interval at every step."""
    spec, section = experiment.spec, experiment.config.model
    test = experiment.evaluation["test"]
    real = test.fetch(np.arange(min(test.num, EXAMPLES)))["x"][:, 0]
    edges = interval(real)
    x = (edges[1:] + edges[:-1]) / 2
    drawn = sampler(experiment.model, params, state, SAMPLES)(jax.random.key(experiment.config.seed))
    known = spec.name in DENSITIES
    p = np.exp(DENSITIES[spec.name]().log_prob(x[:, None])) if known else density(real, edges)
    judged = experiment.model.discriminate is not None and not getattr(section, "conditional", False)
    said = None
    if judged:
        said = np.asarray(compiled(experiment.model.discriminate)(params, state, x[:, None].astype(np.float32)))
    is_logit = getattr(section, "loss", "") in LOGITS
    return Scene(step, x, p, density(drawn[:, 0], edges), said, is_logit, nonfinite(drawn))


def interval(real: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """The edges of CELLS cells that hold the data, and some room beside them."""
    low, high = real.min(), real.max()
    room = 0.15 * (high - low) or 1.0
    return np.linspace(low - room, high + room, CELLS + 1)


def density(draws: Float[np.ndarray, " n"], edges: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m-1"]:
    """The smoothed histogram of what is finite of some draws; those beyond the edges count, and are not shown."""
    finite = draws[np.isfinite(draws)]
    counts = np.histogram(finite, edges)[0] / max(len(finite), 1) / np.diff(edges)
    away = np.arange(-round(4 * SMOOTHED), round(4 * SMOOTHED) + 1)
    kernel = np.exp(-0.5 * (away / SMOOTHED) ** 2)
    return np.convolve(counts, kernel / kernel.sum(), mode="same")
