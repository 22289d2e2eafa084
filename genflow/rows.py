"""Where rows that a model draws itself lie: as those of a batch, each on one device."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped


def cut_rows(x: Shaped[Array, "B *event"]) -> Shaped[Array, "B *event"]:
    """The same array, its rows cut over all devices of the mesh under which a step is compiled; elsewhere as it is.

    Noise that is not added to data has no batch to follow: every device would draw, and compute on, all of it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(x) % mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))
