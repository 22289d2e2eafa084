"""Ordinary differential equations with adaptive steps; the only importer of diffrax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

MAX_STEPS = 4096  # a solution that needs more is NaN
STAGES = 6  # evaluations of Tsit5 in one step; the seventh is the next step's first
ROUNDING = 8  # no tolerance is below this many units of rounding


def solve(
    field: Callable[[Array, PyTree, PyTree], PyTree],
    state: PyTree,
    arguments: PyTree,
    start: float | Array,
    end: float | Array,
    rtol: float,
    atol: float,
) -> tuple[PyTree, Int[Array, ""]]:
    """The solution of d state / dt = field(t, state, arguments) at `end`, NaN where it failed, and the steps taken.

    Tsit5 with adaptive steps, the same for a whole batch: a value depends on its batch within the tolerances. Gradients
    are those of the steps that were taken. A field that is the same function each time, with all that varies in its
    arguments, is traced once.

    Args:
      rtol, atol: of one step, for all of the state together; tolerances below rounding error are raised to it.
    """
    import diffrax  # here, because it takes half a second that only its users should pay

    dtype = jax.tree.leaves(state)[0].dtype
    epsilon = ROUNDING * float(jnp.finfo(dtype).eps)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        jnp.asarray(start, dtype),
        jnp.asarray(end, dtype),
        None,
        state,
        arguments,
        stepsize_controller=diffrax.PIDController(rtol=max(rtol, epsilon), atol=max(atol, epsilon)),
        max_steps=MAX_STEPS,
        throw=False,
    )
    solved = solution.result == diffrax.RESULTS.successful
    return jax.tree.map(lambda a: jnp.where(solved, a[-1], jnp.nan), solution.ys), solution.stats["num_steps"]


def function_evaluations(steps: Int[Array, ""]) -> Int[Array, ""]:
    """How often `solve` evaluated its field in so many steps, rejected ones too; two to choose the first step."""
    return STAGES * steps + 2
