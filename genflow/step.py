"""The one training step of every family, and several of them as one on-device loop."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from genflow.core import Batch, Key, Model, Params, combine, partition
from genflow.optimizers import GroupOptimizer
from genflow.sharding import WHOLE, Layout

UPDATES = "updates"  # metric of a group that is not updated on every step: the share of steps on which it was


class TrainState(NamedTuple):
    """Everything that a step changes; a run is resumed from this and nothing else."""

    step: Array  # int32, optimizer steps taken (skipped ones included)
    params: dict[str, Params]
    opt_state: dict[str, PyTree]
    state: PyTree  # of the model: chains, buffers
    ema: dict[str, Params]  # biased running average of the trainable leaves; {} when off
    ema_steps: Array  # int32, updates in the average
    skipped: Array  # int32, updates that were not applied: not finite, or above skip_norm
    skipped_in_a_row: Array  # int32


def init_state(
    model: Model, optimizers: dict[str, GroupOptimizer], ema_decay: float, key: Key, batch: Batch
) -> TrainState:
    """Initializes parameters from one batch (data-dependent layers need it), optimizers and counters."""
    params, state = model.init(key, batch)
    weights = {group: partition(params[group])[0] for group in params}
    opt_state = {group: optimizers[group].init(weights[group]) for group in model.losses}
    ema = jax.tree.map(jnp.zeros_like, weights) if ema_decay else {}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, opt_state, state, ema, zero, zero, zero)


def make_step(
    model: Model,
    optimizers: dict[str, GroupOptimizer],
    seed: int,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    ema_warmup: float = 0.0,
    layout: Layout = WHOLE,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Returns step(train_state, batch) -> (train_state, metrics).

    For each parameter group in order: differentiate its loss with respect to it alone, update it. The randomness of a
    step is a function of (seed, step). A non-finite loss or gradient in any group, or a gradient above the group's
    skip_norm, leaves everything but the counters as it was.

    Args:
      layout: of parameters that several devices share out.
    """

    def step(train_state, batch):
        key = jax.random.fold_in(jax.random.key(seed), train_state.step)
        new, metrics, good = train_state, {}, jnp.array(True)
        for i, group in enumerate(model.losses):
            gradient = accumulated_gradient(model.losses[group], group, accumulate, layout)
            given = layout.gather(new.params), new.state, jax.random.fold_in(key, i), batch
            grads, state, group_metrics = _when_due(gradient, optimizers[group].every, train_state.step, *given)
            good &= _is_good(group_metrics, optimizers[group].skip_norm)
            metrics |= _prefixed(group_metrics, group, len(model.losses))
            if i + 1 < len(model.losses):
                new = _apply(new, group, optimizers[group], grads, state)

        def update(new, grads, state):
            return _average(_apply(new, group, optimizers[group], grads, state), ema_decay, ema_warmup)

        # a branch, not a select: the last update, for most models the only one, then overwrites what it updates
        kept = jax.lax.cond(good, update, lambda new, grads, state: train_state, new, grads, state)
        return _count(kept, train_state, good), metrics

    return step


def accumulated_gradient(loss: Callable, group: str, micro_batches: int, layout: Layout = WHOLE) -> Callable:
    """(params, state, key, batch) -> (gradient, state, metrics), averaged over micro-batches one after the other."""

    def one(params, state, key, batch):
        weights, constants = partition(params[group])

        def objective(weights):
            return loss(params | {group: combine(weights, constants)}, state, key, batch)

        (value, (state, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(weights)
        return layout.scatter(group, grads), state, metrics | {"loss": value}

    def mean(params, state, key, batch):
        def add(carry, inputs):
            total, state, i = carry
            grads, state, metrics = one(params, state, jax.random.fold_in(key, i), inputs)
            return (jax.tree.map(jnp.add, total, grads), state, i + 1), metrics

        zeros = layout.scatter(group, jax.tree.map(jnp.zeros_like, partition(params[group])[0]))
        carry = (zeros, state, jnp.zeros((), jnp.int32))
        (total, state, _), metrics = jax.lax.scan(add, carry, _micro_batches(batch, micro_batches))
        grads, metrics = jax.tree.map(lambda a: a / micro_batches, total), jax.tree.map(lambda a: a.mean(0), metrics)
        return grads, state, metrics

    def gradient(params, state, key, batch):
        if micro_batches == 1:
            grads, state, metrics = one(params, state, jax.random.fold_in(key, 0), batch)
        else:
            grads, state, metrics = mean(params, state, key, batch)
        return grads, state, metrics | {"grad_norm": optax.tree.norm(grads)}

    return gradient


def _when_due(gradient, every, step, params, state, key, batch):
    """The gradient where `every` divides the steps so far; elsewhere zeros, the old state and metrics of nothing.

    The metric `updates`, 1 or 0, says which: the mean of the others over several steps is over those with an update.
    """
    if every == 1:
        return gradient(params, state, key, batch)

    def idle(params, state, key, batch):
        grads, _, metrics = jax.eval_shape(gradient, params, state, key, batch)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (grads, metrics))
        return zeros[0], state, zeros[1]

    due = is_due(every, step)
    grads, state, metrics = jax.lax.cond(due, gradient, idle, params, state, key, batch)
    return grads, state, metrics | {UPDATES: due.astype(jnp.float32)}


def is_due(every: int, step: Array) -> Array:
    """Whether a group that is updated on every N-th step is updated on this one: the last of each N."""
    return (step + 1) % every == 0


def _micro_batches(batch, count):
    """[B, ...] -> [count, B / count, ...] such that every device keeps its own rows."""
    return jax.tree.map(lambda a: a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1), batch)


def _apply(train_state, group, optimizer, grads, state):
    """One optimizer update of one group, only on the steps that `every` divides."""
    weights, constants = partition(train_state.params[group])
    updates, opt_state = optimizer.update(grads, train_state.opt_state[group], weights)
    fresh = (optax.apply_updates(weights, updates), opt_state)
    if optimizer.every > 1:
        due = is_due(optimizer.every, train_state.step)
        fresh = jax.tree.map(lambda a, b: jnp.where(due, a, b), fresh, (weights, train_state.opt_state[group]))
    weights, opt_state = fresh
    return train_state._replace(
        params=train_state.params | {group: combine(weights, constants)},
        opt_state=train_state.opt_state | {group: opt_state},
        state=state,
    )


def _is_good(metrics, skip_norm):
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    return finite & (metrics["grad_norm"] <= skip_norm) if skip_norm else finite


def _average(train_state, decay, warmup):
    if not decay:
        return train_state
    if warmup:  # 0.5^(1 / half-life), 0 in the first update
        half_life = warmup * train_state.ema_steps
        decay = jnp.where(half_life > 0, jnp.minimum(decay, 0.5 ** (1 / jnp.maximum(half_life, 1e-6))), 0.0)
    weights = {group: partition(train_state.params[group])[0] for group in train_state.params}
    ema = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, train_state.ema, weights)
    return train_state._replace(ema=ema, ema_steps=train_state.ema_steps + 1)


def _count(kept, old, good):
    bad = (~good).astype(jnp.int32)
    return kept._replace(
        step=old.step + 1, skipped=old.skipped + bad, skipped_in_a_row=(old.skipped_in_a_row + 1) * bad
    )


def _prefixed(metrics, group, num_groups):
    return metrics if num_groups == 1 else {f"{group}/{name}": value for name, value in metrics.items()}


def averaged_params(train_state: TrainState, ema_decay: float, ema_warmup: float = 0.0) -> dict[str, Params]:
    """The parameters that evaluation uses: the debiased average ema / (1 - decay^n), or the raw ones when it is off.

    Args:
      ema_warmup: half-life of the average, at most, as a fraction of the updates so far; it then begins with the first
        weights instead of zeros and has no bias. 0: the decay is the same from the start.

    Reference: Kingma and Ba (2015), Adam, arXiv:1412.6980, section 3 (the same bias correction); the warm-up is that of
    the official code of Karras et al. (2022), arXiv:2206.00364.
    """
    if not ema_decay:
        return train_state.params
    steps = jnp.maximum(train_state.ema_steps, 1)
    scale = 1.0 if ema_warmup else 1.0 / (1.0 - jnp.float32(ema_decay) ** steps)
    fresh = train_state.ema_steps == 0
    averaged = {}
    for group, params in train_state.params.items():
        weights, constants = partition(params)
        mean = jax.tree.map(lambda a, w: jnp.where(fresh, w, a * scale), train_state.ema[group], weights)
        averaged[group] = combine(mean, constants)
    return averaged


def _terms(name, totals, count):
    """How many steps the total of a metric is of: those on which its group was updated."""
    group, _, metric = name.rpartition("/")
    updates = f"{group}/{UPDATES}" if group else UPDATES
    return count if metric == UPDATES or updates not in totals else totals[updates]


def make_call(step: Callable, fetch: Callable) -> Callable:
    """Several steps as one compiled loop: call(train_state, data, feed, count) -> (train_state, mean metrics).

    Metrics of a group that was updated on some of the steps are means over these, NaN where there was none.

    Args:
      fetch: (key_step, data, one entry of feed) -> batch, run on the device.

    The number of steps `count` is an argument, not a shape: a shorter last call compiles nothing new. `feed` has a
    leading axis of at least `count` entries.
    """
    step = jax.jit(step, inline=True)  # traced once, for the shapes of its metrics and in the loop

    def call(train_state, data, feed, count):
        def one(i, carry):
            train_state, totals = carry
            entry = jax.tree.map(lambda a: a[i], feed)
            train_state, metrics = step(train_state, fetch(train_state.step, data, entry))
            return train_state, jax.tree.map(jnp.add, totals, metrics)

        entry = jax.tree.map(lambda a: a[0], feed)
        shapes = jax.eval_shape(lambda s: step(s, fetch(s.step, data, entry))[1], train_state)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        train_state, totals = jax.lax.fori_loop(0, count, one, (train_state, zeros))
        means = {name: total / _terms(name, totals, count) for name, total in totals.items()}
        counters = {"skipped": train_state.skipped, "skipped_in_a_row": train_state.skipped_in_a_row}
        return train_state, means | counters

    return call
