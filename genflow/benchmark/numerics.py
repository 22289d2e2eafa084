"""What float32 costs: inverses, log-determinants and samples beside float64 and beside slower exact ways.

Usage: python -m genflow.benchmark.numerics (full | quick)
"""

import json
import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from genflow import bijectors as bj
from genflow import provenance
from genflow.core import Bijector, Model, Params, Spec, is_trainable, sum_event
from genflow.distributions import standard_normal_log_prob, standard_normal_sample
from genflow.models.autoregressive_flow import maf
from genflow.models.glow import glow
from genflow.networks import made


class Sizes(NamedTuple):
    """What is examined, and how large it is."""

    sections: tuple[str, ...] = ("splines", "glow_steps", "sampling", "noisy_weights")
    rows: int = 1000  # vectors
    scales: tuple[float, ...] = (1.0, 10.0, 100.0)  # of spline parameters
    noises: tuple[float, ...] = (0.1, 0.3, 1.0)  # added to the weights of a MAF
    dims: int = 43  # of the MAF that samples in two ways, with its depth and width
    depth: int = 5
    width: int = 512
    deep_dims: int = 63  # of the MAF with noisy weights
    deep_depth: int = 10
    deep_width: int = 64
    levels: int = 3  # of a Glow, with its steps on each level, image side, width and number of images
    steps: int = 32
    image: int = 16
    channels: int = 32
    images: int = 16


SIZES = {
    "full": Sizes(),
    "quick": Sizes(("splines", "noisy_weights"), 20, (1.0,), (0.1,), 4, 2, 8, 4, 2, 8, 1, 2, 4, 4, 4),
}
Figures = Iterator[tuple[str, float]]


def rows(sizes: Sizes) -> list[dict[str, str | float]]:
    """Every figure with its name; NaN where a result is."""
    return [
        {"quantity": name, "figure": float(figure)}
        for section in sizes.sections
        for name, figure in SECTIONS[section](sizes)
    ]


def splines(sizes: Sizes) -> Figures:
    """A spline of 8 bins with N(0, scale^2) parameters: backward errors |f(f^-1(y)) - y| / (1 + |y|).

    Points y = f(x) with x uniform seldom lie where f is steep, points y uniform often do. There rounding x moves f(x),
    so the best that any inverse could do in float32 stands beside the error.
    """
    spline = bj.rational_quadratic_spline(8, 5.0)
    forward, inverse = jax.jit(spline.forward), jax.jit(spline.inverse)
    keys = jax.random.split(jax.random.key(0))
    uniform = jax.random.uniform(keys[0], (sizes.rows, sizes.dims), minval=-6.0, maxval=6.0)
    for scale in sizes.scales:
        raw = scale * jax.random.normal(keys[1], (*uniform.shape, spline.num_params))
        name = f"spline, parameters N(0, {scale:g}^2)"
        for y, origin in ((forward(raw, uniform)[0], "y = f(x)"), (uniform, "y uniform")):
            x, log_inverse = inverse(raw, y)
            back, log_forward = forward(raw, x)
            yield f"{name}, {origin}: backward error", relative(back, y)
            yield f"{name}, {origin}: non-finite of {y.size}", non_finite(x, back, log_inverse, log_forward)
        yield f"{name}, y uniform: best backward error of a rounded x", _rounding(forward, inverse, raw, uniform)


def _rounding(forward, inverse, raw, y):
    with jax.enable_x64(True):
        raw, y = jnp.asarray(raw, jnp.float64), jnp.asarray(y, jnp.float64)
        x = inverse(raw, y)[0].astype(jnp.float32).astype(jnp.float64)
        return relative(forward(raw, x)[0], y)


def glow_steps(sizes: Sizes) -> Figures:
    """A Glow at its data-dependent initialization, in float32 and with the same weights in float64."""
    shape, keys = (sizes.image, sizes.image, 3), jax.random.split(jax.random.key(0), 3)
    model = glow(Spec("noise", shape, None), sizes.levels, sizes.steps, sizes.channels)
    x = jax.random.uniform(keys[0], (sizes.images, *shape), minval=-0.5, maxval=0.5)
    params, state = jax.jit(model.init)(keys[1], {"x": x})
    evaluate = jax.jit(lambda params, x: there_and_back(model, params, state, x))
    z, log_det, back = evaluate(params, x)
    draw = standard_normal_sample(keys[2], z)
    sample, latent = jax.jit(lambda params, z: _back_and_there(model, params, state, z))(params, draw)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if is_trainable(a) else a, params)
        _, wide_log_det, wide_back = map(_leaves, evaluate(wide, jnp.asarray(x, jnp.float64)))
    error, dims = largest(np.asarray(log_det, np.float64) - wide_log_det[0]), math.prod(shape)
    name = f"Glow of {sizes.levels * sizes.steps} steps at initialization"
    yield f"{name}: round trip of x", largest(back - x)
    yield f"{name}: round trip of x in float64", largest(wide_back[0] - np.asarray(x))
    yield f"{name}: round trip of z", max(largest(a - b) for a, b in zip(_leaves(latent), _leaves(draw), strict=True))
    yield f"{name}: log-det beside float64, nats", error
    yield f"{name}: log-det beside float64, bits/dim", error / (dims * math.log(2))
    yield f"{name}: non-finite samples of {sizes.images}", non_finite(sample)


def there_and_back(model: Model, params: Params, state: PyTree, x: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
    """(z, log_det, x again); log_det is the log-density less that of z, so it carries the rounding of both."""
    z = model.encode(params, state, None, {"x": x})
    log_det = model.log_prob(params, state, None, {"x": x}) - standard_normal_log_prob(z)
    return z, log_det, model.decode(params, state, z)


def _back_and_there(model, params, state, z):
    x = model.decode(params, state, z)
    return x, model.encode(params, state, None, {"x": x})


def sampling(sizes: Sizes) -> Figures:
    """A MAF's inverse dimension by dimension beside D evaluations of each whole network, with the same noise."""
    network = made((sizes.width, sizes.width))
    keys = jax.random.split(jax.random.key(0), 3)
    flow = _stack(bj.masked_autoregressive(bj.gaussian(), network), sizes.depth)
    passes = _stack(full_passes(network), sizes.depth)
    z = jax.random.normal(keys[0], (sizes.rows, sizes.dims))
    params = noisy(jax.jit(flow.init)(keys[1], z)[0], keys[2], 0.02)
    x = jax.jit(flow.inverse)(params, z)[0]
    name = "MAF sampling, weights + N(0, 0.02^2)"
    yield f"{name}: beside D passes", relative(x, jax.jit(passes.inverse)(params, z)[0])
    yield f"{name}: backward error", relative(jax.jit(flow.forward)(params, x)[0], z)
    yield f"{name}: standard deviation of the samples", np.std(np.asarray(x))


def _stack(layer, depth):
    step = bj.chain(actnorm=bj.actnorm(), autoregressive=layer, flip=bj.flip())
    return bj.repeat(step, depth)


def full_passes(network) -> Bijector:
    """`masked_autoregressive(gaussian(), network)` whose inverse evaluates the whole network D times."""
    transform = bj.gaussian()
    masked = network(transform.num_params)

    def inverse(params, z, cond=None, key=None):
        def once(_, carry):
            return transform.inverse(masked.apply(params, carry[0]), z)

        x, log_derivative = jax.lax.fori_loop(0, z.shape[1], once, (jnp.zeros_like(z), jnp.zeros_like(z)))
        return x, sum_event(log_derivative)

    return bj.masked_autoregressive(transform, network)._replace(inverse=inverse)


def noisy_weights(sizes: Sizes) -> Figures:
    """A MAF that has been pushed away from its initialization: what is left of its samples."""
    spec = Spec("noise", (sizes.deep_dims,), None)
    model = maf(spec, sizes.deep_depth, (sizes.deep_width, sizes.deep_width))
    keys = jax.random.split(jax.random.key(0), 3)
    z = jax.random.normal(keys[0], (sizes.rows, sizes.deep_dims))
    params, state = jax.jit(model.init)(keys[1], {"x": z})
    run = jax.jit(lambda params, z: _back_and_there(model, params, state, z))
    for noise in sizes.noises:
        x, back = run(noisy(params, keys[2], noise), z)
        name = f"MAF of {sizes.deep_depth} layers, D={sizes.deep_dims}, weights + N(0, {noise:g}^2)"
        yield f"{name}: non-finite of {z.size} sampled values", non_finite(x)
        yield f"{name}: median backward error", np.median(np.abs(np.asarray(back - z)) / (1 + np.abs(np.asarray(z))))


def noisy(params: Params, key: jax.Array, noise: float) -> Params:
    """N(0, noise^2) on every number of the masked networks."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    drawn = [
        leaf + noise * jax.random.normal(key_i, leaf.shape) if "autoregressive" in jax.tree_util.keystr(path) else leaf
        for key_i, (path, leaf) in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return structure.unflatten(drawn)


def relative(found: jax.Array, expected: jax.Array) -> float:
    """Largest |found - expected| / (1 + |expected|), NaN if there is one."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.max(np.abs(found - expected) / (1 + np.abs(expected)))


def largest(a: jax.Array) -> float:
    """Largest magnitude, NaN if there is one; in NumPy, since on a CPU JAX's maximum passes over NaN."""
    return np.max(np.abs(np.asarray(a)))


def non_finite(*arrays: jax.Array) -> int:
    """Places where any of the arrays is not finite."""
    bad = [~np.isfinite(np.asarray(a)) for a in arrays]
    return int(np.logical_or.reduce(bad).sum())


def _leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


SECTIONS = {"splines": splines, "glow_steps": glow_steps, "sampling": sampling, "noisy_weights": noisy_weights}


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    facts = {"versions": provenance.versions(), "device": f"JAX on {provenance.hardware()}"}
    print(json.dumps({"rows": rows(SIZES[sys.argv[1]])} | facts))
