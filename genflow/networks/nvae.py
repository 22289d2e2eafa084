"""The cells of NVAE: residual cells of encoder and decoder, and autoregressive shifts of a map of latents.

Parameters are plain dicts: `kernel` [kh, kw, I, O] of every convolution, beside it an integer `mask` where some taps
are shut; `scale` of every normalization. `models.spectral` finds them by these names.

The paper normalizes over the batch; here every example is normalized alone, over the pixels and 16 channels at a time,
so that a likelihood does not depend on the other examples of a batch. The short-cut of an upsampling cell repeats
pixels, where the official code interpolates; that of a downsampling cell is one 2x2 convolution of stride 2, where it
has four 1x1 convolutions, one for each place of a 2x2 window and a quarter of the channels. Kernels have no weight
normalization of their own.

Every `init` here needs shapes alone and ignores its key: it fills a `kernel` or `weight` with the half-width of its
uniform distribution, and `randomized` draws all of them at once. A key for each would cost seconds of compile time.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from genflow.core import Network, Params
from genflow.networks.conv import conv2d
from genflow.networks.depthwise import depthwise_conv2d
from genflow.networks.precision import precise, wide
from genflow.networks.shifted import halve_windows

CHANNELS = 16  # normalized together
DRAWN = ("kernel", "weight", "start")


def randomized(key: Array, params: Params) -> Params:
    """Every leaf of a name in DRAWN times noise that is uniform in [-1, 1)."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    sizes = [leaf.size * (path[-1].key in DRAWN) for path, leaf in leaves]
    ends = np.cumsum(sizes)
    noise = jax.random.uniform(key, (int(ends[-1]),), minval=-1.0)
    drawn = [
        leaf * noise[end - size : end].reshape(leaf.shape) if size else leaf
        for (_, leaf), size, end in zip(leaves, sizes, ends.tolist(), strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, drawn)


def half_width(shape: tuple[int, ...]) -> Array:
    """1 / sqrt(inputs of one output), everywhere."""
    return jnp.full(shape, math.prod(shape[:-1]) ** -0.5)


def chain(**parts: Network) -> Network:
    """Applies the parts in order."""

    def init(key, x, cond=None):
        params = {}
        for name, part in parts.items():
            params[name] = part.init(key, x)
            x = jax.eval_shape(part.apply, params[name], x)
        return params

    def apply(params, x, cond=None, key=None):
        for name, part in parts.items():
            x = part.apply(params[name], x)
        return x

    return Network(init, apply)


@precise
def convolution(
    features: int,
    side: int = 1,
    op: Callable = conv2d,
    bias: bool = True,
    before: Callable | None = None,
    inputs: int = 0,
) -> Network:
    """op(before(x), kernel) + bias.

    Args:
      inputs: of the kernel; 0: the channels of x.
    """

    def init(key, x, cond=None):
        kernel = half_width((side, side, inputs or x.shape[-1], features))
        return {"kernel": kernel} | ({"bias": jnp.zeros(features)} if bias else {})

    def apply(params, x, cond=None, key=None):
        y = op(before(x) if before else x, params["kernel"])
        return y + params["bias"] if bias else y

    return Network(init, apply)


def normalization(after: Callable | None = None) -> Network:
    """after(scale * (x - mean) / std + bias), mean and std of one example over its pixels and groups of channels.

    Reference: Wu and He (2018), Group normalization, arXiv:1803.08494, equation 1, instead of batch normalization.
    """

    def init(key, x, cond=None):
        return {"scale": jnp.ones(x.shape[-1]), "bias": jnp.zeros(x.shape[-1])}

    def apply(params, x, cond=None, key=None):
        features = x.shape[-1]
        groups = features // CHANNELS if features % CHANNELS == 0 else 1
        y = wide(x).reshape(x.shape[0], -1, groups, features // groups)
        mean, variance = y.mean((1, 3), keepdims=True), y.var((1, 3), keepdims=True)
        y = ((y - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(x.shape).astype(x.dtype)
        y = y * params["scale"] + params["bias"]
        return after(y) if after else y

    return Network(init, apply)


def squeeze_excitation() -> Network:
    """x sigmoid(V relu(W mean(x))): one gate for each channel.

    Reference: Hu et al. (2018), Squeeze-and-excitation networks, arXiv:1709.01507, equations 2 to 4.
    """

    def init(key, x, cond=None):
        features = x.shape[-1]
        hidden = max(features // 16, 4)
        shapes = {"squeeze": (features, hidden), "excite": (hidden, features)}
        return {name: {"weight": half_width(shape), "bias": jnp.zeros(shape[1])} for name, shape in shapes.items()}

    def apply(params, x, cond=None, key=None):
        first, second = params["squeeze"], params["excite"]
        hidden = jax.nn.relu(x.mean((1, 2)) @ first["weight"] + first["bias"])
        return x * jax.nn.sigmoid(hidden @ second["weight"] + second["bias"])[:, None, None]

    return Network(init, apply)


def residual(body: Network, shortcut: Network | None = None) -> Network:
    """shortcut(x) + 0.1 body(x)."""

    def init(key, x, cond=None):
        return {"body": body.init(key, x)} | ({"shortcut": shortcut.init(key, x)} if shortcut else {})

    def apply(params, x, cond=None, key=None):
        skip = shortcut.apply(params["shortcut"], x) if shortcut else x
        return skip + 0.1 * body.apply(params["body"], x)

    return Network(init, apply)


@precise
def encoder_cell(width: int) -> Network:
    """Normalization, swish and a 3x3 convolution, twice, and a squeeze-excitation gate.

    Reference: Vahdat and Kautz (2020), NVAE, arXiv:2007.03898, figure 3b.
    """
    return residual(_encoder_body(width, conv2d))


@precise
def down_cell(width: int) -> Network:
    """The encoder cell whose first convolution and short-cut have stride 2; `width` channels come out."""
    return residual(_encoder_body(width, _halve), convolution(width, 2, halve_windows, before=jax.nn.silu))


@precise
def decoder_cell(width: int, expansion: int = 6) -> Network:
    """1x1 convolution to expansion * width channels, depthwise 5x5, 1x1 back, each normalized, swish; and the gate.

    Reference: Vahdat and Kautz (2020), NVAE, arXiv:2007.03898, figure 3a.
    """
    return residual(_decoder_body(width, expansion * width, depthwise_conv2d))


@precise
def up_cell(width: int, expansion: int = 6) -> Network:
    """The decoder cell between an image of 2 * width channels and one of twice the side and `width` channels.

    Pixels are repeated after the expansion, with which this commutes, as does a normalization of one example.
    """
    body = _decoder_body(width, 2 * expansion * width, lambda x, kernel: depthwise_conv2d(doubled(x), kernel))
    return residual(body, convolution(width, 1, lambda x, kernel: doubled(conv2d(x, kernel))))


def doubled(x: Array) -> Array:
    """Every pixel four times.

    >>> doubled(jnp.arange(2.0).reshape(1, 1, 2, 1))[0, :, :, 0].tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """
    B, H, W, C = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (B, H, 2, W, 2, C)).reshape(B, 2 * H, 2 * W, C)


def _halve(x, kernel):
    return halve_windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel)


def _encoder_body(width, first):
    return chain(
        norm_0=normalization(jax.nn.silu),
        conv_0=convolution(width, 3, first),
        norm_1=normalization(jax.nn.silu),
        conv_1=convolution(width, 3),
        gate=squeeze_excitation(),
    )


def _decoder_body(width, hidden, depthwise):
    return chain(
        norm_0=normalization(),
        expand=convolution(hidden, bias=False),
        norm_1=normalization(jax.nn.silu),
        depthwise=convolution(hidden, 5, depthwise, bias=False, inputs=1),
        norm_2=normalization(jax.nn.silu),
        project=convolution(width, bias=False),
        norm_3=normalization(),
        gate=squeeze_excitation(),
    )


def repeated(cell: Network, num: int, memory: str = "store") -> Network:
    """`num` copies of a shape-preserving cell with stacked parameters, one after the other as a scan."""

    def init(key, x, cond=None):
        return copies(cell.init(key, x), num)

    def apply(params, x, cond=None, key=None):
        return jax.lax.scan(kept(lambda x, p: (cell.apply(p, x), None), memory), x, params)[0]

    return Network(init, apply)


def recomputed(part: Network, memory: str) -> Network:
    """The network, of which the backward pass keeps what `kept` says."""
    return Network(part.init, kept(part.apply, memory))


def copies(params: Params, num: int) -> Params:
    """Stacked parameters, all the same until `randomized` draws them."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (num, *a.shape)), params)


def kept(body: Callable, memory: str) -> Callable:
    """The function, of which the backward pass keeps everything ('store'), or the inputs alone ('remat')."""
    return jax.checkpoint(body) if memory == "remat" else body


@precise
def autoregressive_shift(channels: int, mirrored: bool = False) -> Network:
    """m(z): 3x3, depthwise 5x5 and 1x1 convolutions whose output at a latent depends on the latents before it alone.

    Latents are in raster order (mirrored: from the last pixel on), those of a pixel by channel. z - m(z) has
    log-determinant 0.

    Reference: Kingma et al. (2016), arXiv:1606.04934, equation 11, with standard deviations at one, as in the
    official code of NVAE.
    """
    hidden = 6 * channels
    shapes = {"first": (3, 3, channels, hidden), "depthwise": (5, 5, 1, hidden), "last": (1, 1, hidden, channels)}

    def init(key, z, cond=None):
        params = {}
        for name, shape in shapes.items():
            mask = jnp.asarray(causal_mask(shape, channels, name == "first", mirrored), jnp.int8)
            kernel = (0.1 if name == "last" else 1.0) * mask * half_width(shape)
            params[name] = {"kernel": kernel, "mask": mask, "bias": jnp.zeros(shape[-1])}
        return params

    def apply(params, z, cond=None, key=None):
        def layer(name, op, x):
            return op(x, params[name]["kernel"] * params[name]["mask"]) + params[name]["bias"]

        h = jax.nn.elu(layer("first", conv2d, z))
        return layer("last", conv2d, jax.nn.elu(layer("depthwise", depthwise_conv2d, h)))

    return Network(init, apply)


def causal_mask(shape: tuple[int, int, int, int], channels: int, strict: bool, mirrored: bool) -> np.ndarray:
    """Ones where a kernel [kh, kw, I, O] may see: pixels before, and of the same pixel the channels up to its own.

    Args:
      channels: of the latents, among which inputs and outputs are dealt in order.
      strict: a channel does not see itself.

    >>> causal_mask((1, 3, 1, 1), 1, True, False).ravel().tolist()
    [1, 0, 0]
    """
    kh, kw, inputs, outputs = shape
    mask = np.zeros(shape, int)
    mask[: kh // 2], mask[kh // 2, : kw // 2] = 1, 1
    if mirrored:
        mask = mask[::-1, ::-1].copy()
    own, seen = np.arange(outputs) * channels // outputs, np.arange(inputs) * channels // inputs
    mask[kh // 2, kw // 2] = seen[:, None] < own if strict else seen[:, None] <= own  # depthwise: seen is 0
    return mask
