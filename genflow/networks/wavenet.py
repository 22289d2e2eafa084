"""WaveNet: dilated causal convolutions, evaluated for all samples at once or one after another from ring buffers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genflow.core import CausalNetwork, Params
from genflow.networks.precision import precise, wide


def receptive_field(kernel: int, dilations: tuple[int, ...]) -> int:
    """How many samples before its own an output depends on: kernel + (kernel - 1) * sum(dilations).

    >>> receptive_field(2, (1, 2, 4, 8))
    17
    """
    return kernel + (kernel - 1) * sum(dilations)


@precise
def wavenet(
    dilations: tuple[int, ...], width: int, skip_width: int, bins: int, kernel: int = 2
) -> Callable[[int], CausalNetwork]:
    """z = tanh(W_f * h + V_f c) sigmoid(W_g * h + V_g c), h <- h + W_r z; raw = 1x1(relu(1x1(relu(sum of W_s z)))).

    Builder num_params -> CausalNetwork on sites [B, L, 1]. Codes enter one-hot, through a causal convolution that skips
    the site itself; before the first site all is zero. The layers are one scan, with the dilation as data.

    Args:
      dilations: of the layers, in samples.
      kernel: taps of every causal convolution.

    cond is [B, D], the same for all samples (global), or [B, T, D], frames of L / T samples each (local); a global
    vector beside frames is a part of every frame. Samplers other than 'windowed' take both.

    Reference: van den Oord et al. (2016), WaveNet: A generative model for raw audio, arXiv:1609.03499, equation 2,
    section 2.5 (h by repetition) and figure 4; Le Paine et al. (2016), Fast WaveNet generation algorithm,
    arXiv:1611.09482 (the steps).
    """
    field = receptive_field(kernel, dilations)

    def build(num_params):
        def init(key, x, cond=None):
            keys = jax.random.split(key, 6)
            layers = {
                "gate_kernel": _normal(keys[1], (len(dilations), kernel * width, 2 * width)),
                "gate_bias": jnp.zeros((len(dilations), 2 * width)),
                "out_kernel": _normal(keys[2], (len(dilations), width, width + skip_width)),
                "out_bias": jnp.zeros((len(dilations), width + skip_width)),
            }
            if cond is not None:
                layers["cond_kernel"] = _normal(keys[3], (len(dilations), cond.shape[-1], 2 * width))
            head = {"hidden": _dense(keys[4], skip_width, skip_width)}
            head["output"] = jax.tree.map(lambda a: 0.1 * a, _dense(keys[5], skip_width, num_params))  # near uniform
            return {"codes_kernel": _ordered(keys[0], kernel, bins, width), "layers": layers, "head": head}

        def apply(params, x, cond=None, key=None):
            h = _delayed(_embedded(params["codes_kernel"], x[..., 0]))
            sums = wide(jnp.zeros((*h.shape[:2], skip_width), h.dtype))
            layers = params["layers"] | {"dilation": jnp.array(dilations), "bias": _biases(params, cond)}

            @jax.checkpoint  # as fast as keeping the gates, in less memory
            def layer(carry, own):
                h, sums = carry
                bias = jnp.repeat(own["bias"], h.shape[1] // own["bias"].shape[1], axis=1)
                z = _gated(_taps(h, own["dilation"], kernel, max(dilations)) @ own["gate_kernel"] + bias)
                return _residual(own, z, h, sums), None

            return _head(params["head"], jax.lax.scan(layer, (h, sums), layers)[0][1])

        def start(params, num, cond=None):
            dtype = params["codes_kernel"].dtype
            past = [jnp.zeros(((kernel - 1) * d, num, width), dtype) for d in dilations]
            return past, _biases(params, cond)

        def step(params, cache, x, i, cond=None):
            past, biases = cache
            h = _latest(params["codes_kernel"], x[..., 0], i)
            sums = wide(jnp.zeros((len(h), skip_width), h.dtype))
            frame = i * biases.shape[2] // x.shape[1]
            for n, dilation in enumerate(dilations):
                own = jax.tree.map(lambda a, n=n: a[n], params["layers"])
                taps, past[n] = _pushed(past[n], h, dilation, i)
                z = _gated(taps @ own["gate_kernel"] + biases[n, :, frame])
                h, sums = _residual(own, z, h, sums)
            return _head(params["head"], sums), (past, biases)

        return CausalNetwork(init, apply, start, step, (field + 1, 1), field)

    return build


def _biases(params: Params, cond: Array | None) -> Float[Array, "layers b frames 2w"]:
    """What the gates of each layer add: one frame for all samples where the condition is global."""
    layers = params["layers"]
    bias = layers["gate_bias"][:, None, None]
    if cond is None:
        return bias
    frames = cond[:, None] if cond.ndim == 2 else cond
    return bias + jnp.einsum("btd,ldw->lbtw", frames, layers["cond_kernel"])


def _gated(a: Array) -> Array:
    filtered, gate = jnp.split(a, 2, axis=-1)
    return jnp.tanh(filtered) * jax.nn.sigmoid(gate)


def _residual(own, z, h, sums):
    out = z @ own["out_kernel"] + own["out_bias"]
    return h + out[..., : h.shape[-1]], sums + out[..., h.shape[-1] :]


def _head(params, sums):
    kernel = params["hidden"]["kernel"]
    h = jax.nn.relu(sums).astype(kernel.dtype) @ kernel + params["hidden"]["bias"]
    return jax.nn.relu(h) @ params["output"]["kernel"] + params["output"]["bias"]


# All samples at once


def _embedded(codes_kernel: Float[Array, "K bins w"], codes: Int[Array, "B L"]) -> Float[Array, "K B L w"]:
    return codes_kernel[:, codes]


def _delayed(taps: Float[Array, "K B L w"]) -> Float[Array, "B L w"]:
    """The sum over taps, tap k delayed by k + 1 samples."""
    L = taps.shape[2]
    return sum(jnp.pad(tap, ((0, 0), (k + 1, 0), (0, 0)))[:, :L] for k, tap in enumerate(taps))


def _taps(h: Float[Array, "B L w"], dilation, kernel: int, largest: int) -> Float[Array, "B L Kw"]:
    """Copies of h delayed by (kernel - 1) * dilation, ..., dilation, 0 samples, side by side."""
    padding = (kernel - 1) * largest
    padded = jnp.pad(h, ((0, 0), (padding, 0), (0, 0)))
    starts = [padding - k * dilation for k in range(kernel - 1, 0, -1)]
    copies = [jax.lax.dynamic_slice_in_dim(padded, start, h.shape[1], axis=1) for start in starts]
    return jnp.concatenate([*copies, h], axis=-1)


# One sample after another


def _latest(codes_kernel: Float[Array, "K bins w"], codes: Int[Array, "B L"], i) -> Float[Array, "B w"]:
    at = i - 1 - jnp.arange(len(codes_kernel))
    taps = codes_kernel[jnp.arange(len(at))[:, None], codes[:, at].T]
    return jnp.where((at >= 0)[:, None, None], taps, 0).sum(0)


def _pushed(past: Float[Array, "slots B w"], h: Float[Array, "B w"], dilation: int, i):
    """The taps of site i [B, K w], and the ring buffer in which h has taken the place of the oldest."""
    slots = len(past)
    at = [(i - delay) % slots for delay in range(slots, 0, -dilation)]
    copies = [jax.lax.dynamic_index_in_dim(past, slot, keepdims=False) for slot in at]
    return jnp.concatenate([*copies, h], axis=-1), jax.lax.dynamic_update_index_in_dim(past, h, i % slots, 0)


def _normal(key, shape):
    return jax.random.normal(key, shape) / jnp.sqrt(shape[-2])


def _ordered(key, kernel, bins, width):
    """What the codes start as: near to each other where the codes are, so that their order need not be learnt."""
    keys = jax.random.split(key)
    line = jnp.linspace(-1.7, 1.7, bins)[:, None] * jax.random.normal(keys[0], (kernel, 1, width))
    return (line + 0.2 * jax.random.normal(keys[1], (kernel, bins, width))) / jnp.sqrt(kernel)


def _dense(key, inputs, outputs):
    return {"kernel": _normal(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}
