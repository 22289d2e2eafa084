"""What a trained latent variable model uses of its latents: units that follow the data, and nats of each level."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from genflow.core import Key, Model, Params
from genflow.evaluate import Place, batches, fetch
from genflow.hosts import to_host

NUM_EXAMPLES = 1000
ACTIVE = 0.01  # variance over the data above which a unit's posterior mean follows them
IN_USE = 0.01  # nats above which a level is not its prior
MOST_FIGURES = 8


class Usage(NamedTuple):
    """variances: over the data, of what q gives each unit without noise, as one example's latents; kl in nats."""

    variances: PyTree
    kl: Float[np.ndarray, "L N"]


def usage(
    model: Model,
    params: Params,
    state,
    key: Key,
    dataset,
    batch_size: int,
    num: int = NUM_EXAMPLES,
    place: Place = fetch,
) -> Usage:
    """Variances of posterior means and KL terms on the first `num` examples of a data set.

    A posterior mean is what q gives without noise (`Model.encode`). In a hierarchy it is that given the modes of the
    levels that q draws before; where q is a flow, it is where the flow takes the mean of its base, not the mean of q.

    Raises:
      ValueError: the model has no latent variables.
    """
    if model.latent is None:
        raise ValueError("needs a latent variable model, such as vae")

    @jax.jit
    def look(params, state, key, batch, temperature):  # compiled once: modes are draws at temperature 0
        drawn = model.latent.infer(params, state, key, batch, True, temperature)
        return drawn.z, drawn.kl

    kl, moments = [], Moments(0, 0.0, 0.0)
    for i, (batch, count) in enumerate(batches(dataset, batch_size, num, place)):
        arguments = params, state, jax.random.fold_in(key, i), batch
        leaves, structure = jax.tree.flatten(look(*arguments, 0.0)[0])
        flat = [to_host(leaf)[:count].reshape(count, -1) for leaf in leaves]
        moments = moments.add(np.concatenate(flat, axis=1).astype(np.float64))
        kl.append(to_host(look(*arguments, 1.0)[1])[:, :count].astype(np.float64))
    ends = np.cumsum([math.prod(leaf.shape[1:]) for leaf in leaves])[:-1]
    parts = np.split(moments.variance(), ends)
    shaped = [part.reshape(leaf.shape[1:]) for part, leaf in zip(parts, leaves, strict=True)]
    return Usage(structure.unflatten(shaped), np.concatenate(kl, axis=1))


class Moments(NamedTuple):
    """Count, mean and sum of squared distances from it, of rows seen in parts (Chan et al. 1983)."""

    num: int
    mean: Float[np.ndarray, " D"] | float
    squares: Float[np.ndarray, " D"] | float

    def add(self, rows: Float[np.ndarray, "N D"]) -> "Moments":
        """With more rows."""
        num, mean = self.num + len(rows), rows.mean(0)
        distance = mean - self.mean
        squares = ((rows - mean) ** 2).sum(0) + distance**2 * self.num * len(rows) / num
        return Moments(num, self.mean + distance * len(rows) / num, self.squares + squares)

    def variance(self) -> Float[np.ndarray, " D"]:
        """Divided by the number of rows."""
        return np.asarray(self.squares) / self.num


def active_units(variances: PyTree) -> list[int]:
    """How many units of each leaf have a posterior mean (see `usage`) of variance above 0.01.

    Reference: Burda et al. (2016), Importance weighted autoencoders, arXiv:1509.00519, section 5.2 (there of the mean
    given draws of the levels before).
    """
    return [int((leaf > ACTIVE).sum()) for leaf in jax.tree.leaves(variances)]


def diagnostics(
    model: Model,
    params: Params,
    state,
    key: Key,
    dataset,
    batch_size: int,
    num: int = NUM_EXAMPLES,
    place: Place = fetch,
) -> dict[str, tuple[float, float]]:
    """Named figures of a run with their standard errors (0: not an estimate of a mean); {} without latent variables.

    Levels are counted as they are generated, and listed where there are few.
    """
    if model.latent is None:
        return {}
    used = usage(model, params, state, key, dataset, batch_size, num, place)
    active, units = active_units(used.variances), sum(leaf.size for leaf in jax.tree.leaves(used.variances))
    totals = {"units": (float(units), 0.0), "active units": (float(sum(active)), 0.0)}
    totals["KL, nats"] = _mean(used.kl.sum(0))
    num_levels = len(used.kl)
    if num_levels == 1:
        return totals
    counts = {f"active units, level {i}": (float(n), 0.0) for i, n in enumerate(active, 1)}
    counts = counts if len(active) == num_levels else {}  # a leaf may hold several levels
    levels = {f"KL, nats, level {i}": _mean(row) for i, row in enumerate(used.kl, 1)}
    if len(totals) + len(levels) > MOST_FIGURES:
        levels = {"levels with a KL above 0.01 nats": (float((used.kl.mean(1) > IN_USE).sum()), 0.0)}
        return totals | {"levels": (float(num_levels), 0.0)} | levels
    return totals | (counts if len(totals | counts | levels) <= MOST_FIGURES else {}) | levels


def _mean(values):
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
