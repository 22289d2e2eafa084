"""One mesh for one device or thousands: a batch is cut over all of it, parameters along its second axis.

The axes are 'data' and 'model'. Every device computes on rows of its own; parameters, and with them the optimizer's
state and the average, are either whole on every device or cut along 'model' by rule, and then gathered where they are
used (Rajbhandari et al. 2020, ZeRO, arXiv:1910.02054, stage 3; "fully sharded data parallel").
"""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from genflow.errors import UserError
from genflow.optimizers import leaf_name
from genflow.rows import over_rows
from genflow.rules import AXES, LARGEST, axes_fault

PARAMS = "params/"  # how paths of parameters begin
STATE = "state/"  # how paths of the model's state begin
CHAINS = "chains"  # the last name in the path of a state whose first axis is the batch's


def make_mesh(data: int, model: int) -> Mesh:
    """Mesh of all devices of all hosts; `data=-1` takes what `model` leaves.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    if data == -1:
        if devices % model:
            raise UserError(f"config.sharding.model={model} does not divide the number of devices, {devices}")
        data = devices // model
    if data * model != devices:
        raise UserError(f"config.sharding: data={data} x model={model} is not the number of devices, {devices}")
    # Auto axes: on an Explicit mesh, the default, gathers and sorts raise ShardingTypeError.
    return jax.make_mesh((data, model), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds a whole copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Arrays whose `axis` is the batch, cut over all devices of the mesh."""
    return NamedSharding(mesh, over_rows(mesh, axis))


def tree_shardings(mesh: Mesh, tree: PyTree, rules: Sequence = ()) -> PyTree:
    """A sharding for each leaf of a tree of shapes, by the first rule whose regular expression matches its path.

    Args:
      tree: a TrainState, or a part of it. Only its parameters, their average and the optimizer's state are cut by rule.
      rules: ((pattern, (axis name or '' for each of the last dimensions)), ...), or ((pattern, ('largest',)), ...) to
        cut the largest dimension that the parameter axis divides. Leaves without a match are replicated, but for
        `chains`, whose rows are cut as those of a batch. A rule speaks of the trailing dimensions, so stacked layers
        need no rule of their own; dimensions that the mesh axis does not divide stay whole.

    Raises:
      UserError: an axis that the mesh does not have, or one that a rule names twice.
    """
    if fault := next(filter(None, (axes_fault(axes) for _, axes in rules)), ""):
        raise UserError(f"config.sharding.rules: {fault}")

    def sharding(path, leaf):
        name = leaf_name(path)
        for pattern, axes in rules:
            if _can_cut(axes, name, leaf) and re.search(pattern, name):
                return NamedSharding(mesh, _partition(mesh, leaf.shape, axes))
        is_chains = name.rpartition("/")[2] == CHAINS and leaf.ndim > 0
        return batch_sharding(mesh) if is_chains and leaf.shape[0] % mesh.size == 0 else replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def check_rules(tree: PyTree, rules: Sequence) -> None:
    """Raises UserError for a rule of `tree_shardings` that speaks of nothing in a whole TrainState: it is mistyped."""
    leaves = [(leaf_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    for pattern, axes in rules:
        names = [name for name, leaf in leaves if _can_cut(axes, name, leaf)]
        if not any(re.search(pattern, name) for name in names):
            params = [name for name in names if name.startswith(PARAMS)]
            near = ", ".join(difflib.get_close_matches(pattern, params, 3, 0.0)) or "none"
            size = f"{len(axes)} or more dimensions"
            raise UserError(f"config.sharding.rules: {pattern!r} matches no parameter of {size}; there are {near}")


def _can_cut(axes, name, leaf):
    """Whether a leaf of a TrainState may be cut by rule, and has a dimension for each of its words."""
    return not name.startswith(STATE) and leaf.ndim >= len(axes)


class Layout(NamedTuple):
    """How a step computes with parameters that the devices share out."""

    gather: Callable[[PyTree], PyTree]  # parameters -> the same, whole on every device
    scatter: Callable[[str, PyTree], PyTree]  # (group, gradient) -> summed over devices, each with its own part


WHOLE = Layout(lambda params: params, lambda group, grads: grads)


def layout(mesh: Mesh, rules: Sequence) -> Layout:
    """Gathers parameters once a step and hands each device the part of the gradients that it will apply.

    Left to itself, XLA's partitioner cuts activations as the parameters are cut, and moves them at every layer. So a
    gradient is whole before it is cut: compilers of accelerators make one reduce-scatter of it.
    """
    if not rules:
        return WHOLE

    def gather(params):
        return jax.lax.with_sharding_constraint(params, jax.tree.map(lambda _: replicated(mesh), params))

    def scatter(group, grads):
        cut = tree_shardings(mesh, {"params": {group: grads}}, rules)["params"][group]
        return jax.lax.with_sharding_constraint(gather(grads), cut)

    return Layout(gather, scatter)


def _partition(mesh, shape, axes):
    """The axes of a rule from the last dimension on, where they divide it."""
    if tuple(axes) == (LARGEST,):
        fitting = [i for i in range(len(shape)) if shape[i] and shape[i] % mesh.shape["model"] == 0]
        cut = max(fitting, key=lambda i: shape[i], default=None)
        return PartitionSpec(*("model" if i == cut else None for i in range(len(shape))))
    names = (None,) * (len(shape) - len(axes)) + tuple(axis or None for axis in axes)
    return PartitionSpec(
        *(n if n and size % mesh.shape[n] == 0 else None for n, size in zip(names, shape, strict=True))
    )


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array that every process has in full, placed by a sharding over all processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def local_rows(mesh: Mesh, num: int) -> np.ndarray:
    """Which of a batch's `num` rows the devices of this process hold, ascending."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((num,)).values()
    return np.unique(np.concatenate([np.arange(num)[part] for (part,) in parts]))


def put_rows(mesh: Mesh, rows: np.ndarray, num: int, axis: int = 0) -> jax.Array:
    """A batch of `num` rows along `axis`, cut over all devices, from the rows that `local_rows` names.

    Args:
      rows: this process's rows and no others.
    """
    sharding = batch_sharding(mesh, axis)
    held = local_rows(mesh, num)

    def part(index):
        wanted = np.searchsorted(held, np.arange(num)[index[axis]])
        return rows[(*index[:axis], wanted, *index[axis + 1 :])]

    return jax.make_array_from_callback((*rows.shape[:axis], num, *rows.shape[axis + 1 :]), sharding, part)


def check_batch(mesh: Mesh, field: str, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError unless a batch cuts evenly over the devices and the micro-batches."""
    parts = mesh.size * accumulate
    if batch_size % parts:
        factors = "devices" + " x optimizer.accumulate" * (accumulate > 1)
        raise UserError(f"config.{field}={batch_size} must be a multiple of {parts} ({factors})")
