"""The peer's contestants for flows of vectors: flowjax on its own interpreter.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/flowjax_flows.py '{"task": "train", "rows": 1000, "flow": {...}}' in our
root; see genflow/benchmark/vectors.py.
"""

import importlib.metadata
import json
import os
import platform
import sys

from genflow.benchmark.turns import serve, timed


def masked_flow(key, base, depth: int, width: int):
    """flowjax's MAF in the direction whose density is fast."""
    from flowjax.flows import masked_autoregressive_flow

    return masked_autoregressive_flow(key, base_dist=base, flow_layers=depth, nn_width=width, nn_depth=2)


def spline_flow(key, base, depth: int, width: int, bins: int):
    """Couplings of splines on [-5, 5]; flowjax counts the knots between the bins."""
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.flows import coupling_flow

    spline = RationalQuadraticSpline(knots=bins - 1, interval=5)
    return coupling_flow(key, base_dist=base, transformer=spline, flow_layers=depth, nn_width=width, nn_depth=2)


def train(flow, x):
    """The step of flowjax's `fit_to_data`, with its memory donated; reading the loss waits for the device."""
    import equinox as eqx
    import jax
    import optax
    import paramax

    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimizer = optax.adam(1e-5)

    def loss(params, x):
        return -paramax.unwrap(eqx.combine(params, static)).log_prob(x).mean()

    @eqx.filter_jit(donate="all-except-first")
    def update(x, params, opt_state):
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return value, eqx.apply_updates(params, updates), opt_state

    state = [params, optimizer.init(params)]

    def step():
        value, *state[:] = update(x, *state)
        jax.block_until_ready((value, state))

    return step


def log_prob(flow, x):
    """The density of every row."""
    import equinox as eqx
    import jax

    evaluate = eqx.filter_jit(lambda flow, x: flow.log_prob(x))
    return lambda: jax.block_until_ready(evaluate(flow, x))


def sample(flow, x):
    """As many samples as there are rows."""
    import equinox as eqx
    import jax

    draw = eqx.filter_jit(lambda flow, key: flow.sample(key, (len(x),)))
    return lambda: jax.block_until_ready(draw(flow, jax.random.key(2)))


FLOWS = {"maf": masked_flow, "spline": spline_flow}
TASKS = {"train": train, "log_prob": log_prob, "sample": sample}


def parameter_bytes(flow) -> int:
    """Bytes of everything that is differentiated."""
    import equinox as eqx
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array)))


def main(task: str, rows: int, flow: dict) -> None:
    """Builds the flow for rows of noise, runs once and serves."""
    import jax
    import jax.numpy as jnp
    from flowjax.distributions import Normal

    jax.config.update("jax_default_matmul_precision", "float32")
    base, x = Normal(jnp.zeros(flow["dims"])), jax.random.normal(jax.random.key(1), (rows, flow["dims"]))
    sizes = {name: size for name, size in flow.items() if name not in ("kind", "dims")}
    model = FLOWS[flow["kind"]](jax.random.key(0), base, **sizes)
    step = TASKS[task](model, x)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flowjax")}
    device = jax.devices()[0]
    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": parameter_bytes(model),
        "versions": {f"{name} of flowjax" if name == "jax" else name: v for name, v in versions.items()},
        "device": f"JAX on {len(os.sched_getaffinity(0))} cores" if device.platform == "cpu" else device.device_kind,
    }
    facts["versions"]["python of the peers"] = platform.python_version()
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
