"""What the logits of a classifier say of an input: its class, and whether it is an input of the known kind at all.

The scores are high for what is strange, as in `analysis.outliers`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genflow.analysis.outliers import Scores
from genflow.core import Model, Params, Spec, sum_event
from genflow.evaluate import Place, batches, fetch
from genflow.hosts import to_host

SCORES = ("log_density", "confidence", "approximate_mass")


def unit_of(spec: Spec) -> float:
    """How much of the data's own scale is 1 where integers 0 .. bins - 1 are brought to 0 to 1; continuous data: 1."""
    return 1.0 if spec.bins is None else float(spec.bins - 1)


def log_density(model: Model) -> Callable[..., Float[Array, " B"]]:
    """As (params, state, x) -> log p(x) + a constant: the negative energy; without one logsumexp of the logits.

    A classifier that was not trained as an energy has no density: its logsumexp is a score like any other.

    Reference: Grathwohl et al. (2020), Your classifier is secretly an energy based model, arXiv:1912.03263, equation 6.
    """
    if model.energy is not None:
        return lambda params, state, x: -model.energy(params, state, x)
    return lambda params, state, x: jax.nn.logsumexp(model.classify(params, state, x), axis=1)


def logits(model: Model) -> Callable[..., Float[Array, "B K"]]:
    """As (params, state, x) -> the logits of p(y | x) for x as a data set has it."""
    return lambda params, state, x: model.classify(params, state, x.astype(jnp.float32))


def margin(logits: Float[Array, "B K"], label: Int[Array, " B"]) -> Float[Array, " B"]:
    """logsumexp of the other classes' logits minus the label's: log((1 - p) / p) of its probability p.

    Where p rounds to 1 its logarithm is flat, and this is not. The cross-entropy is softplus of it.
    """
    is_label = jnp.arange(logits.shape[1]) == label[:, None]
    own = jnp.where(is_label, logits, 0.0).sum(1)
    return jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, logits), axis=1) - own


def input_scores(model: Model, spec: Spec) -> Callable[..., dict[str, Float[Array, " B"]]]:
    """As (params, state, x) -> the scores of `SCORES` of every input.

    log_density: -log p(x) - a constant. confidence: log((1 - p) / p) of p = max p(y | x), which ranks as -p does, but
    tells probabilities apart that round to 1. approximate_mass: |d log p(x) / dx| with data scaled to 0 to 1: around a
    typical point the density is flat.

    Reference: Grathwohl et al. (2020), arXiv:1912.03263, section 5.3; of max p(y | x) Hendrycks and Gimpel (2017),
      arXiv:1610.02136.
    """
    density = log_density(model)

    def scores(params, state, x):
        x = x.astype(jnp.float32)
        each_class = model.classify(params, state, x)
        value, pull = jax.vjp(lambda x: density(params, state, x), x)
        slope = pull(jnp.ones_like(value))[0] * unit_of(spec)
        return {
            "log_density": -value,
            "confidence": margin(each_class, each_class.argmax(1)),
            "approximate_mass": jnp.sqrt(sum_event(slope**2)),
        }

    return scores


def each(
    function: Callable, params: Params, state, dataset, batch_size: int, place: Place = fetch
) -> Scores | np.ndarray:
    """A function (params, state, x) of all examples of a data set, compiled once: arrays of the host, [N, ...]."""
    evaluate, parts = jax.jit(function), []
    for batch, count in batches(dataset, batch_size, 0, place):
        found = evaluate(params, state, batch["x"])
        parts.append(jax.tree.map(lambda a, count=count: to_host(a).astype(np.float64)[:count], found))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)
