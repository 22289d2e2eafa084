"""From log-probabilities in nats to figures: the only place that knows bits per dimension."""

import functools
import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float, Int

from genflow.core import Key, Model, Params, Spec
from genflow.hosts import to_host
from genflow.rows import rows_beside

LN2 = math.log(2.0)
Place = Callable[..., dict]  # (dataset, indices) -> the examples, where the computation wants them


def fetch(dataset, index: Int[np.ndarray, " b"]) -> dict:
    """The examples at some indices, in the memory of this host."""
    return dataset.fetch(index)


class Score(NamedTuple):
    """A mean over examples with its standard error, in the unit of `unit(spec)`; lower is better."""

    value: float
    standard_error: float
    num_examples: int


def unit(spec: Spec) -> str:
    """'nats' an example for continuous data, which have no bin, and for binary images; else bits a dimension.

    A dimension is a channel of a pixel ('bits/dim'), a character ('bits/char') or a sample of sound ('bits/sample').
    """
    if spec.bins is None or (spec.bins == 2 and spec.kind == "images"):
        return "nats"
    return {"text": "bits/char", "sound": "bits/sample"}.get(spec.kind, "bits/dim")


def in_unit(spec: Spec, nll):
    """Negative log-likelihood in nats per example to the spec's unit: nll / (dims ln 2) for bits.

    >>> round(in_unit(Spec("gray", (8, 8, 1), 256), 64 * 8 * LN2), 6)
    8.0
    """
    return nll if unit(spec) == "nats" else nll / (spec.dims * LN2)


def score(spec: Spec, log_probs: Float[np.ndarray, " N"], split: str = "data") -> Score:
    """Mean and standard error of the examples' negative log-likelihoods in the spec's unit.

    Raises:
      FloatingPointError: some log-probability is not finite; names the first such example.
    """
    bad = np.flatnonzero(~np.isfinite(log_probs))
    if bad.size:
        raise FloatingPointError(
            f"log_prob is not finite for {bad.size} of {len(log_probs)} examples of {split}, first index {bad[0]}"
        )
    values = in_unit(spec, -np.asarray(log_probs, np.float64))
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Score(float(values.mean()), float(error), len(values))


def log_probs(
    model: Model,
    params: Params,
    state,
    dataset,
    key: Key,
    batch_size: int,
    num_repeats: int = 1,
    limit: int = 0,
    place: Place = fetch,
    importance_samples: int = 1,
    samples_per_call: int = 1,
) -> Float[np.ndarray, " N"]:
    """log_prob of every example of a data set, in nats, averaged over independent noise draws.

    The average of log_prob over draws keeps a lower bound a lower bound. The noise is a function of the key, the
    example's position, the batch size and, of several draws of a model with `log_weights`, of how many share a pass:
    the smaller of importance_samples and samples_per_call.

    Args:
      importance_samples: k > 1 gives log (1/k) sum_k exp log_prob_k of each repeat, a bound that tightens with k
        (Burda et al. 2016, arXiv:1509.00519, equation 8); memory does not grow with k.
      samples_per_call: of a model with `log_weights`, so many draws share one pass through the encoder, and memory
        grows with them.

    Raises:
      ValueError: importance_samples above 1 of a model whose log_prob is a bound on average only.
    """
    check_importance(model, importance_samples)
    per_call = min(samples_per_call, importance_samples)
    is_weighed = importance_samples > 1 and model.log_weights is not None
    evaluate = compiled_weights(model.log_weights, per_call) if is_weighed else compiled(model.log_prob)
    out = []
    for i, (batch, count) in enumerate(batches(dataset, batch_size, limit, place)):
        keys = [jax.random.fold_in(key, i * num_repeats + r) for r in range(num_repeats)]
        draws = [evaluate(params, state, k, batch, importance_samples) for k in keys]
        out.append(np.mean([to_host(d).astype(np.float64) for d in draws], axis=0)[:count])
    return np.concatenate(out)


def normalized(model: Model, params: Params, state, key: Key):
    """The model's state with what log_prob needs of these parameters: the log Z of an energy-based model.

    Whoever reads parameters to score them calls it once.
    """
    needed = model.energy_based and model.energy_based.normalize
    return compiled_normalize(needed)(params, state, key) if needed else state


@functools.lru_cache(maxsize=8)
def compiled_normalize(normalize: Callable) -> Callable:
    """Jit of a model's `normalize`; the evaluations of one run share it."""
    return jax.jit(normalize)


def check_importance(model: Model, importance_samples: int) -> None:
    """Refuses the log-mean-exp of draws that are no importance weights.

    Raises:
      ValueError: it would be no bound.
    """
    if importance_samples > 1 and model.bound == "average" and model.log_weights is None:
        raise ValueError(
            f"importance_samples={importance_samples}: a draw of this model's bound is no importance weight, and the "
            "log-mean-exp of draws bounds nothing; set it to 1, and num_repeats higher"
        )


@functools.lru_cache(maxsize=8)
def compiled(log_prob: Callable) -> Callable:
    """Jit of (params, state, key, batch, k) -> log-mean-exp of k draws of a model's log_prob.

    Evaluations of one run share it; k is an argument, not a shape.
    """

    def log_mean_exp(params, state, key, batch, k):
        def add(i, total):
            return jnp.logaddexp(total, log_prob(params, state, jax.random.fold_in(key, i), batch))

        start = jnp.full(batch["x"].shape[0], -jnp.inf)
        return jax.lax.fori_loop(0, k, add, start) - jnp.log(k)

    return jax.jit(log_mean_exp)


@functools.lru_cache(maxsize=8)
def compiled_weights(log_weights: Callable, per_call: int) -> Callable:
    """Like `compiled`, of a model's log_weights, `per_call` draws at a time."""

    def log_mean_exp(params, state, key, batch, k):
        def add(i, total):
            weights = log_weights(params, state, jax.random.fold_in(key, i), batch, per_call)
            wanted = i * per_call + jnp.arange(per_call) < k
            return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=1, where=wanted))

        start = jnp.full(batch["x"].shape[0], -jnp.inf)
        return jax.lax.fori_loop(0, (k + per_call - 1) // per_call, add, start) - jnp.log(k)

    return jax.jit(log_mean_exp)


def batches(dataset, batch_size: int, limit: int = 0, place: Place = fetch) -> Iterator[tuple[dict, int]]:
    """(batch, number of real examples in it) in order; the last batch is filled up by repeating its last example."""
    num = min(dataset.num, limit) if limit else dataset.num
    for start in range(0, num, batch_size):
        index = np.arange(start, start + batch_size)
        yield place(dataset, np.minimum(index, num - 1)), min(batch_size, num - start)


def round_trip(model: Model, params: Params, state, batch) -> np.ndarray:
    """decode(encode(x)) without noise, as float32 in data space."""
    both = jax.jit(lambda p, s, b: model.decode(p, s, model.encode(p, s, None, b), b))
    return to_host(both(params, state, batch)).astype(np.float32)


def sampler(model: Model, params: Params, state, num: int, cond=None, **options) -> Callable[..., np.ndarray]:
    """Returns draw(key, temperature=1.0) -> [num, *event] float32 in data space, compiled once for all temperatures.

    Each of several devices draws rows of its own, if their number divides `num`: the same samples, to rounding.
    Non-finite samples stay as they are; `nonfinite` counts them. A diffusion model shows its progress on a terminal.

    Args:
      options: of a diffusion model, those of `Diffusion.draw`.
    """
    draw = compiled_sample(model.sample, rows_beside(params, num), **options, **_progress(model))
    return lambda key, temperature=1.0: _drawn(draw(params, state, key, num, cond, temperature))


@functools.lru_cache(maxsize=8)
def compiled_sample(sample: Callable, placed: Sharding | None, **options) -> Callable:
    """Jit of a model's sample; the sheets of one run, while it trains and after, share it."""
    return jax.jit(functools.partial(sample, **options), static_argnums=3, out_shardings=placed)


def show_progress(done: int, num: int) -> None:
    """Writes how many steps of a loop are done over the line on the terminal that said so before."""
    sys.stderr.write(f"\r  drawing: step {done}/{num}" + "\n" * (done == num))
    sys.stderr.flush()


def _progress(model):
    """The option that makes a loop call `show_progress`, for whoever watches it."""
    return {"progress": show_progress} if model.diffusion is not None and sys.stderr.isatty() else {}


def _drawn(x):
    x = to_host(x).astype(np.float32)
    jax.effects_barrier()  # a report of progress may lag behind the samples
    return x


def completer(model: Model, params: Params, state, x, known, cond=None, **options) -> Callable[..., np.ndarray]:
    """Returns draw(key, temperature=1.0) -> like x, float32 in data space: what is not known of x drawn, compiled once.

    Args:
      options: of `Model.complete`: top_k and top_p, or those of a diffusion model.
    """
    options |= _progress(model)

    def complete(params, state, key, temperature):
        return model.complete(params, state, key, x, known, cond, temperature, **options)

    draw = jax.jit(complete, out_shardings=rows_beside(params, len(x)))
    return lambda key, temperature=1.0: _drawn(draw(params, state, key, temperature))


def nonfinite(samples: np.ndarray) -> int:
    """How many of the samples have a NaN or an infinity."""
    return int((~np.isfinite(samples.reshape(len(samples), -1)).all(1)).sum())
