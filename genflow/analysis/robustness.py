"""How far inputs must move to change a classifier's answer: projected gradient descent in L-infinity and L2 balls."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from genflow.analysis.logits import margin, unit_of
from genflow.core import Key, Model, Params, Spec, sum_event
from genflow.evaluate import Place, batches, fetch
from genflow.hosts import to_host

NORMS = ("linf", "l2")
REACH = 2.5  # times the radius, the length of all steps together: every point of the ball can be reached from any other


class Attack(NamedTuple):
    """Projected gradient descent: a norm, and how much work."""

    norm: str = "linf"
    num_steps: int = 20
    restarts: int = 1  # random starts; one success is enough


class Attacked(NamedTuple):
    """Inputs where an attack left them, and whether the answer there is not the label."""

    x: Float[Array, "B *event"]
    fooled: Bool[Array, " B"]


def projected_gradient(
    classify: Callable[..., Float[Array, "B K"]], attack: Attack, box: tuple[float, float]
) -> Callable[..., Attacked]:
    """As (params, state, key, x, label, epsilon) -> `Attacked`, in the units of x; one compilation serves all epsilon.

    From a random point of the ball around x, steps up the gradient of the cross-entropy (its sign in L-infinity, its
    direction in L2), each projected onto the ball and clipped to the box. An input moves until its answer is wrong; one
    whose answer is wrong already stays. The gradient is that of `margin`, of which the cross-entropy is an increasing
    function: the direction is the same and does not vanish where p(label | x) rounds to 1, which would pass for
    robustness.

    Args:
      box: lowest and highest value that an input may have.

    Raises:
      ValueError: another norm, or no steps.

    Reference: Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, arXiv:1706.06083,
      section 2.1, and the steps of 2.5 epsilon / num_steps of its L2 attacks (figure 6).
    """
    if attack.norm not in NORMS:
        raise ValueError(f"norm={attack.norm!r}: expected {' or '.join(NORMS)}")
    if attack.num_steps < 1 or attack.restarts < 1:
        raise ValueError(f"num_steps={attack.num_steps}, restarts={attack.restarts}: expected 1 or more of both")
    start, direction, project = (_linf if attack.norm == "linf" else _l2)()

    def search(params, state, key, x, label, epsilon):
        def objective(z):
            logits = classify(params, state, z)
            return margin(logits, label).sum(), _is_wrong(logits, label)

        def inside(z):
            return jnp.clip(x + project(z - x, epsilon), *box)

        def advance(_, z):
            slope, fooled = jax.grad(objective, has_aux=True)(z)
            step = REACH * epsilon / attack.num_steps * direction(slope)
            return jnp.where(_rows(fooled, x), z, inside(z + step))

        def restart(i, z):
            begun = inside(x + start(jax.random.fold_in(key, i), x, epsilon))
            begun = jnp.where(_rows(objective(z)[1], x), z, begun)
            return jax.lax.fori_loop(0, attack.num_steps, advance, begun)

        z = jax.lax.fori_loop(0, attack.restarts, restart, x)
        return Attacked(z, objective(z)[1])

    return search


def _is_wrong(logits, label):
    """Whether another class has at least as much as the label's, or what they have is not a number."""
    is_label = jnp.arange(logits.shape[1]) == label[:, None]
    return ~(jnp.where(is_label, -jnp.inf, logits).max(1) < jnp.where(is_label, logits, 0.0).sum(1))


def _rows(a, x):
    return a.reshape(-1, *(1,) * (x.ndim - 1))


def _linf():
    def start(key, x, epsilon):
        return epsilon * jax.random.uniform(key, x.shape, minval=-1.0, maxval=1.0)

    return start, jnp.sign, lambda step, epsilon: jnp.clip(step, -epsilon, epsilon)


def _l2():
    def direction(slope):
        norm = _rows(jnp.sqrt(sum_event(slope**2)), slope)
        return slope / jnp.where(norm > 0, norm, 1.0)

    def start(key, x, epsilon):
        """Uniform in the ball: its volume within a radius r grows with r^dims."""
        key_direction, key_radius = jax.random.split(key)
        radius = jax.random.uniform(key_radius, (len(x),)) ** (1 / x[0].size)
        return epsilon * _rows(radius, x) * direction(jax.random.normal(key_direction, x.shape))

    def project(step, epsilon):
        norm = _rows(jnp.sqrt(sum_event(step**2)), step)
        return step * jnp.where(norm > epsilon, epsilon / jnp.where(norm > 0, norm, 1.0), 1.0)

    return start, direction, project


def withstood(
    model: Model,
    params: Params,
    state,
    dataset,
    key: Key,
    batch_size: int,
    spec: Spec,
    epsilons: Sequence[float],
    attack: Attack,
    place: Place = fetch,
) -> Bool[np.ndarray, "E N"]:
    """Whether the answer to each example is right everywhere that the attack looked within each radius.

    What is fooled within one radius is fooled within every larger one.

    Args:
      epsilons: radii with data scaled to 0 to 1, in increasing order; 0 is the answer to the example itself.

    Raises:
      ValueError: radii that are negative or do not increase.
    """
    if list(epsilons) != sorted(set(epsilons)) or min(epsilons, default=-1) < 0:
        raise ValueError(f"epsilons={tuple(epsilons)}: expected radii of 0 or more in increasing order")
    box = (-np.inf, np.inf) if spec.bins is None else (0.0, spec.bins - 1.0)
    search = projected_gradient(model.classify, attack, box)

    @jax.jit
    def fooled(params, state, key, batch, epsilon):
        return search(params, state, key, batch["x"].astype(jnp.float32), batch["label"], epsilon).fooled

    rows = []
    for i, (batch, count) in enumerate(batches(dataset, batch_size, 0, place)):
        shown = {name: batch[name] for name in ("x", "label")}
        keys = [jax.random.fold_in(jax.random.fold_in(key, i), j) for j in range(len(epsilons))]
        radii = [np.float32(epsilon * unit_of(spec)) for epsilon in epsilons]
        found = [fooled(params, state, *each, shown, radius) for *each, radius in zip(keys, radii, strict=True)]
        rows.append(np.stack([to_host(a)[:count] for a in found]))
    return ~np.logical_or.accumulate(np.concatenate(rows, axis=1), axis=0)
