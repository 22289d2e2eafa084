"""A convolution and its gradients at the top level of a program and inside a scan: XLA:CPU's trap and its cure.

Usage: python -m genflow.benchmark.convs '{"batch": 16, "shapes": [[16, 3, 128, 12]], "seconds": 0.3}'; a shape is
(image side, kernel side, input channels, output channels).
"""

import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from genflow.networks import conv2d

LENGTH = 4  # convolutions in one scan
PARTS = ("forward", "d input", "d kernel")


def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same convolution as JAX offers it."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def part(conv, name: str):
    """(x, kernel, g) -> the output, or the gradient of <g, output> with respect to one of the two inputs."""
    return {
        "forward": lambda x, kernel, g: conv(x, kernel),
        "d input": lambda x, kernel, g: jax.vjp(lambda x: conv(x, kernel), x)[1](g)[0],
        "d kernel": lambda x, kernel, g: jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](g)[0],
    }[name]


def chained(function):
    """`function` LENGTH times in a scan; one number of each result enters the next call, so that none is hoisted."""

    def body(operands, _):
        out = jax.lax.optimization_barrier(function(*operands))
        seed = 1e-3 * out[0, 0, 0, 0]
        return tuple(a.at[0, 0, 0, 0].set(seed) for a in operands), None

    return lambda *operands: jax.lax.scan(body, operands, length=LENGTH)[0]


def gigaflops(function, operands, flops: int, seconds: float) -> float:
    """Median rate over the calls that fit into a time (at least two after the first, which compiles)."""
    call, times = jax.jit(function), []
    jax.block_until_ready(call(*operands))
    while len(times) < 2 or sum(times) < seconds:
        begin = time.perf_counter()
        jax.block_until_ready(call(*operands))
        times.append(time.perf_counter() - begin)
    return flops / statistics.median(times) / 1e9


def rows(batch: int, shapes: list[tuple[int, int, int, int]], seconds: float) -> list[dict]:
    """GFLOP/s of every part of every shape: lax.conv and conv2d, at the top level and in a scan."""
    found = []
    for side, k, features_in, features_out in shapes:
        draw = [(batch, side, side, features_in), (k, k, features_in, features_out), (batch, side, side, features_out)]
        operands = [jax.random.normal(jax.random.key(i), shape, jnp.float32) for i, shape in enumerate(draw)]
        flops = 2 * batch * side**2 * k**2 * features_in * features_out
        for name in PARTS:
            row = {"convolution": f"{k}x{k} {features_in}->{features_out} at {side}x{side}, {name}"}
            for label, conv in (("lax.conv", native), ("conv2d", conv2d)):
                function = part(conv, name)
                row[label] = gigaflops(function, operands, flops, seconds)
                row[f"{label} in scan"] = gigaflops(chained(function), operands, LENGTH * flops, seconds)
            found.append(row)
    return found


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    print(json.dumps(rows(**json.loads(sys.argv[1]))))
