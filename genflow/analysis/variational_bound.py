"""The variational bound of a model with a chain of steps, exactly: every term of it, not one drawn at random."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genflow.core import Key, Model, Params, Spec
from genflow.evaluate import Place, batches, fetch, in_unit, unit
from genflow.hosts import to_host

MOST_CALLS = 20_000  # of the network, for one example each
FEWEST_EXAMPLES, MOST_EXAMPLES = 16, 1000


class Terms(NamedTuple):
    """Terms of -log p(x)'s bound in the ruler's unit: of each example, the prior's first, then those of the chain.

    The chain's first term is the decoder's, -log p(x | z_1).
    """

    values: Float[np.ndarray, "T+1 N"]
    unit: str

    @property
    def num_examples(self) -> int:
        """N."""
        return self.values.shape[1]

    @property
    def means(self) -> Float[np.ndarray, " T+1"]:
        """Of each term over the examples."""
        return self.values.mean(1)

    @property
    def errors(self) -> Float[np.ndarray, " T+1"]:
        """Standard errors of the means: of the examples, and of the one draw of z_i for each."""
        return standard_error(self.values)

    def parts(self) -> dict[str, tuple[float, float]]:
        """Sums of terms with their standard errors: prior, chain, decoder, and all of them."""
        sums = {
            "prior": self.values[0],
            "chain": self.values[2:].sum(0),
            "decoder": self.values[1],
            "bound": self.values.sum(0),
        }
        return {f"{name}, {self.unit}": (float(a.mean()), float(standard_error(a))) for name, a in sums.items()}


def standard_error(values: Float[np.ndarray, "*rows N"]) -> Float[np.ndarray, "*rows"]:
    """Of the mean over the last axis; NaN for one value."""
    num = values.shape[-1]
    return values.std(-1, ddof=1) / math.sqrt(num) if num > 1 else np.full(values.shape[:-1], np.nan)


def affordable(num_terms: int, most: int) -> int:
    """How many of `most` examples are given all their terms: as many as MOST_CALLS allow, but some in any case."""
    return min(max(MOST_CALLS // num_terms, FEWEST_EXAMPLES), MOST_EXAMPLES, most)


def terms(
    model: Model,
    spec: Spec,
    params: Params,
    state,
    key: Key,
    dataset,
    batch_size: int,
    num: int,
    place: Place = fetch,
) -> Terms:
    """Every term, of the first `num` examples of a data set.

    All steps of a batch are one compiled loop. The noise is a function of the key, the batch size, the step and the
    example's position.

    Raises:
      ValueError: the model has no chain of steps.
    """
    if model.diffusion is None or not model.diffusion.num_terms:
        raise ValueError("needs a diffusion model with a chain of steps, such as ddpm")

    @jax.jit
    def look(params, state, key, batch):
        def one(i):
            return model.diffusion.terms(params, state, jax.random.fold_in(key, i), batch, i)

        return jax.lax.map(one, jnp.arange(model.diffusion.num_terms + 1))

    found = []
    for i, (batch, count) in enumerate(batches(dataset, batch_size, num, place)):
        values = to_host(look(params, state, jax.random.fold_in(key, i), batch))
        found.append(values[:, :count].astype(np.float64))
    return Terms(in_unit(spec, np.concatenate(found, axis=1)), unit(spec))
