"""Optimizers from a configuration section: one for each parameter group."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from genflow.errors import UserError

SQUARING = ("adam", "rmsprop")  # rules that average squared gradients


class GroupOptimizer(NamedTuple):
    """How one parameter group is updated: on steps that `every` divides, by `update`, at `schedule(step)`.

    skip_norm: no update for a gradient of a larger norm, before clipping; 0: no limit
    """

    init: Callable
    update: Callable
    schedule: Callable
    every: int
    skip_norm: float = 0.0


def make_optimizers(section: Mapping, groups: list[str], num_steps: int) -> dict[str, GroupOptimizer]:
    """Builds {group: GroupOptimizer} from `config.optimizer` and the overrides in `config.optimizer.groups`.

    Raises:
      UserError: `groups` names a parameter group that the model does not have.
    """
    shared = dict(section)
    overrides = shared.pop("groups")
    if unknown := sorted(set(overrides) - set(groups)):
        raise UserError(f"config.optimizer.groups.{unknown[0]}: the model's parameter groups are {', '.join(groups)}")
    return {group: group_optimizer(shared | dict(overrides.get(group, {})), num_steps) for group in groups}


def group_optimizer(options: Mapping, num_steps: int) -> GroupOptimizer:
    """One optimizer: clipping, the named update rule, decoupled weight decay on matching paths, the schedule.

    Raises:
      UserError: milestones at negative steps, or a start of second moments that the rule does not have.
    """
    updates = num_steps // options["every"]
    schedule = learning_rate_schedule(options, updates)
    clip = optax.clip_by_global_norm(options["clip_norm"]) if options["clip_norm"] else optax.identity()
    decay = optax.add_decayed_weights(options["weight_decay"], lambda tree: path_mask(options["decay_pattern"], tree))
    rule = optax.chain(clip, _scaling(options), decay, optax.scale_by_learning_rate(schedule))
    return GroupOptimizer(rule.init, rule.update, schedule, options["every"], options["skip_norm"])


def _scaling(options):
    b1, b2, eps = options["b1"], options["b2"], options["eps"]
    second = options["initial_second_moment"]
    if second and options["name"] not in SQUARING:
        fault = f"config.optimizer.initial_second_moment={second}: {options['name']} has no average of squares"
        raise UserError(f"{fault}; set it to 0, or take {' or '.join(SQUARING)}")
    rules = {
        "adam": lambda: _started(optax.scale_by_adam(b1, b2, eps), second),
        "adamax": lambda: optax.scale_by_adamax(b1, b2, eps),
        "rmsprop": lambda: optax.scale_by_rms(b2, eps, second),
        "sgd": lambda: optax.trace(b1) if b1 else optax.identity(),
        "lion": lambda: optax.scale_by_lion(b1, b2),
    }
    return rules[options["name"]]()


def _started(rule, second):
    """Adam whose running average of squared gradients does not start at zero."""

    def init(params):
        state = rule.init(params)
        return state._replace(nu=jax.tree.map(lambda a: jnp.full_like(a, second), state.nu))

    return optax.GradientTransformation(init, rule.update)


def learning_rate_schedule(options: Mapping, num_steps: int) -> Callable:
    """Linear warm-up from 0 to the peak, then constant, or cosine or linear decay to final_scale * peak; milestones."""
    peak, warmup = options["learning_rate"], options["warmup_steps"]
    rest = max(num_steps - warmup, 1)
    decay = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, options["final_scale"]),
        "linear": lambda: optax.linear_schedule(peak, peak * options["final_scale"], rest),
    }[options["schedule"]]()
    schedule = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup]) if warmup else decay
    return _stepped(schedule, options["milestones"]) if options["milestones"] else schedule


def _stepped(schedule, milestones):
    """The schedule times the scale of the last milestone that was reached; 1 before the first."""
    if any(step < 0 for step, _ in milestones):
        raise UserError(f"config.optimizer.milestones={milestones}: steps must not be negative")
    steps, scales = zip(*sorted(milestones), strict=True)
    scales = jnp.array((1.0, *scales))
    return lambda step: schedule(step) * scales[jnp.searchsorted(jnp.array(steps), step, side="right")]


def path_mask(pattern: str, tree: PyTree) -> PyTree:
    """True for the leaves whose slash-separated path matches the regular expression anywhere."""
    return jax.tree_util.tree_map_with_path(lambda path, _: re.search(pattern, leaf_name(path)) is not None, tree)


def leaf_name(path) -> str:
    """'model/level/steps/actnorm/bias' for the path of a leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
