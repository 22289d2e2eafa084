"""One mesh for one device or thousands: a batch axis 'data' and a parameter axis 'model'."""

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from genflow.errors import UserError
from genflow.optimizers import leaf_name

AXES = ("data", "model")
CHAINS = "chains"  # the last name in the path of a state whose first axis is the batch's


def make_mesh(data: int, model: int) -> Mesh:
    """Mesh of all devices of all hosts; `data=-1` takes what `model` leaves.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    if data == -1:
        data = devices // model
    if data * model != devices:
        raise UserError(f"config.sharding: data={data} x model={model} is not the number of devices, {devices}")
    # Auto axes: on an Explicit mesh, the default, gathers and sorts raise ShardingTypeError.
    return jax.make_mesh((data, model), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds a whole copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Arrays whose `axis` is the batch, cut along the mesh's data axis."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))


def tree_shardings(mesh: Mesh, tree: PyTree, rules: Sequence = ()) -> PyTree:
    """A sharding for each leaf of a tree of shapes, by the first rule whose regular expression matches its path.

    Args:
      rules: ((pattern, (axis name or '' for each of the last dimensions)), ...). Leaves without a match are
        replicated, but for `chains`, whose rows are cut as those of a batch. A rule speaks of the trailing dimensions,
        so stacked layers need no rule of their own; dimensions that the mesh axis does not divide stay whole.
    """
    if unknown := [axis for _, axes in rules for axis in axes if axis and axis not in AXES]:
        raise UserError(f"config.sharding.rules: no mesh axis {unknown[0]!r}; the axes are {', '.join(AXES)}")

    def sharding(path, leaf):
        for pattern, axes in rules:
            if re.search(pattern, leaf_name(path)) and leaf.ndim >= len(axes):
                return NamedSharding(mesh, PartitionSpec(*_fitting(mesh, leaf.shape, axes)))
        is_chains = leaf_name(path).rpartition("/")[2] == CHAINS and leaf.ndim > 0
        return batch_sharding(mesh) if is_chains and leaf.shape[0] % mesh.shape["data"] == 0 else replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _fitting(mesh, shape, axes):
    names = (None,) * (len(shape) - len(axes)) + tuple(axis or None for axis in axes)
    return tuple(n if n and size % mesh.shape[n] == 0 else None for n, size in zip(names, shape, strict=True))


def put(mesh: Mesh, array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array that every process has in full, placed by a sharding over all processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def check_batch(mesh: Mesh, field: str, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError unless a batch cuts evenly over the data axis and the micro-batches."""
    parts = mesh.shape["data"] * accumulate
    if batch_size % parts:
        factors = "devices along sharding.data" + " x optimizer.accumulate" * (accumulate > 1)
        raise UserError(f"config.{field}={batch_size} must be a multiple of {parts} ({factors})")
