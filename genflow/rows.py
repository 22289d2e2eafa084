"""Where rows that a model draws itself lie: as those of a batch, each on one device."""

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped


def over_rows(mesh: Mesh | AbstractMesh, axis: int = 0) -> PartitionSpec:
    """Of arrays whose `axis` is the batch: cut over all devices."""
    return PartitionSpec(*(None,) * axis, mesh.axis_names)


def cut_rows(x: Shaped[Array, "B *event"]) -> Shaped[Array, "B *event"]:
    """The same array, its rows cut over all devices of the mesh under which a step is compiled; elsewhere as it is.

    Noise that is not added to data has no batch to follow: every device would draw, and compute on, all of it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(x) % mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, over_rows(mesh))


def rows_beside(params: PyTree, num: int) -> NamedSharding | None:
    """Where rows that a model draws shall lie: cut over the devices that hold its parameters, each draws its own.

    None where there is one device, or where the rows do not divide.
    """
    shardings = [leaf.sharding for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array)]
    meshes = [sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding)]
    if not meshes or meshes[0].size == 1 or num % meshes[0].size:
        return None
    return NamedSharding(meshes[0], over_rows(meshes[0]))
