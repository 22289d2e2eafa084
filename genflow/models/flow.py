"""Normalizing flows: a bijector, a base density, one loss."""

import jax
import jax.numpy as jnp

from genflow import bijectors as bj
from genflow.core import Bijector, Model, Spec
from genflow.dequantize import dequantizer
from genflow.distributions import standard_normal_log_prob, standard_normal_sample
from genflow.networks import glow_conv, mlp, zero_conv


def flow(spec: Spec, bijector: Bijector) -> Model:
    """Log p(x) = log N(f(x); 0, I) + log |det df/dx| for continuous data; discrete data are dequantized first.

    For discrete data log_prob is one draw of the dequantization bound ('lower'), for continuous data it is exact.

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770; Dinh et al. (2017), arXiv:1605.08803, equation 2.
    """
    noise = dequantizer(spec)

    def init(key, batch):
        key_noise, key_flow = jax.random.split(key)
        _, y = noise.init(key_noise, batch["x"])
        return {"model": bijector.init(key_flow, y)[0]}, {}

    def transform(params, key, x):
        y, log_weight = noise.forward({}, x, None, key)
        z, log_det = bijector.forward(params["model"], y)
        return z, log_det + log_weight

    def log_prob(params, state, key, batch):
        z, log_det = transform(params, key, batch["x"])
        return standard_normal_log_prob(z) + log_det

    def loss(params, state, key, batch):
        nll = -log_prob(params, state, key, batch).mean()
        return nll, (state, {"nll": nll})

    def sample(params, state, key, num, cond=None, temperature=1.0):
        example = jax.ShapeDtypeStruct((num, *spec.shape), jnp.uint8 if spec.bins else jnp.float32)
        shapes = jax.eval_shape(lambda x: transform(params, None, x)[0], example)
        return decode(params, state, standard_normal_sample(key, shapes, temperature))

    def encode(params, state, key, batch):
        return transform(params, key, batch["x"])[0]

    def decode(params, state, z, cond=None):
        return noise.inverse(bijector.inverse(params["model"], z)[0])

    bound = "exact" if spec.bins is None else "lower"
    return Model(init, {"model": loss}, sample, log_prob, bound, encode, decode)


def glow(
    spec: Spec,
    levels: int = 3,
    depth: int = 32,
    width: int = 512,
    coupling: str = "affine",
    memory: str = "store",
    gaussianize: bool = False,
) -> Model:
    """Multi-scale flow of ActNorm, invertible 1x1 convolution and coupling, `depth` times on each of `levels` levels.

    Args:
      width: hidden channels of the coupling networks.
      coupling: 'affine' or 'additive'.
      memory: see `bijectors.repeat`.
      gaussianize: give every pixel its own learned histogram first (`bijectors.histogram_gaussianization`); for small
        data sets with few gray levels.

    Reference: Kingma and Dhariwal (2018), Glow, arXiv:1807.03039, figure 2 and table 1.
    """
    _check_glow(spec, levels, depth, width, gaussianize)
    transform = bj.affine(bj.sigmoid_scale) if coupling == "affine" else bj.additive()
    step = bj.chain(
        actnorm=bj.actnorm(), conv1x1=bj.conv1x1(), coupling=bj.coupling(transform, glow_conv(width), bj.halves())
    )

    def level(rest):
        squeezed = bj.chain(squeeze=bj.squeeze(), steps=bj.repeat(step, depth, memory))
        if rest is None:
            return bj.chain(level=squeezed, prior=bj.channel_affine())
        return bj.chain(level=squeezed, prior=bj.split_prior(zero_conv()), next=bj.factor_out(rest))

    bijector = None
    for _ in range(levels):
        bijector = level(bijector)
    if gaussianize:
        bijector = bj.chain(marginals=bj.histogram_gaussianization(spec.bins), glow=bijector)
    return flow(spec, bijector)


def _check_glow(spec, levels, depth, width, gaussianize):
    if len(spec.shape) != 3 or (gaussianize and spec.bins is None):
        raise ValueError(f"models discrete images [height, width, channels]; {spec.name} has shape {spec.shape}")
    if min(levels, depth, width) < 1:
        raise ValueError(f"levels={levels}, depth={depth} and width={width} must be above zero")
    if any(side % 2**levels for side in spec.shape[:2]):
        raise ValueError(f"levels={levels} halves images of {spec.shape[0]}x{spec.shape[1]} too often; use fewer")


def coupling_flow(spec: Spec, depth: int = 8, widths: tuple[int, ...] = (64, 64), memory: str = "store") -> Model:
    """Flow of ActNorm and tanh-bounded affine couplings on vectors, the order of the dimensions reversed in between.

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803.
    """
    if len(spec.shape) != 1 or spec.dims < 2:
        raise ValueError(f"models vectors of two dimensions or more; {spec.name} has shape {spec.shape}")
    if min(depth, *widths) < 1:
        raise ValueError(f"depth={depth} and widths={widths} must be above zero")
    transform = bj.affine(bj.tanh_scale())
    network = mlp(widths, zero_last=True)
    step = bj.chain(actnorm=bj.actnorm(), coupling=bj.coupling(transform, network), flip=bj.flip())
    return flow(spec, bj.chain(steps=bj.repeat(step, depth, memory), prior=bj.channel_affine()))
