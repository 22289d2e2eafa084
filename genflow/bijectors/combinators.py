"""Bijectors made of bijectors: chain, repeat (depth as a scan), invert, factor_out."""

import jax
import jax.numpy as jnp

from genflow.core import Bijector, combine, partition

MEMORY = ("store", "remat", "invert")
# A conditioner's last layer is a fifth of the work of a Glow step and its output no larger than the step's input.
KEEP_CONDITIONERS = jax.checkpoint_policies.save_only_these_names("conditioner")


def chain(*layers: Bijector, **named: Bijector) -> Bijector:
    """Composition f_n o ... o f_1; `chain(a, b)` applies a first.

    Keyword arguments keep their order and name the parameters: `chain(squeeze=squeeze(), steps=repeat(step, 32))`.

    >>> list(chain(first=identity(), second=identity()).init(jax.random.key(0), jnp.zeros((1, 2)))[0])
    ['first', 'second']
    """
    items = {str(i): layer for i, layer in enumerate(layers)} | named

    def init(key, x, cond=None):
        params = {}
        for name, key_i in zip(items, jax.random.split(key, len(items)), strict=True):
            params[name], x = items[name].init(key_i, x, cond)
        return params, x

    def forward(params, x, cond=None, key=None):
        total = _zero_log_det(x)
        for i, (name, layer) in enumerate(items.items()):
            x, log_det = layer.forward(params[name], x, cond, _layer_key(key, i))
            total += log_det
        return x, total

    def inverse(params, z, cond=None, key=None):
        total = _zero_log_det(z)
        for i, (name, layer) in reversed(list(enumerate(items.items()))):
            z, log_det = layer.inverse(params[name], z, cond, _layer_key(key, i))
            total += log_det
        return z, total

    def rebuild(params, z, cond=None, key=None):
        vjps = {}
        for i, (name, layer) in reversed(list(enumerate(items.items()))):
            z, vjps[name] = rebuild_of(layer)(params[name], z, cond, _layer_key(key, i))

        def vjp(grad, grad_log_det):
            grads, grad_cond = {}, jax.tree.map(jnp.zeros_like, cond)
            for name, layer_vjp in vjps.items():
                grads[name], grad, grad_cond_i = layer_vjp(grad, grad_log_det)
                grad_cond = jax.tree.map(jnp.add, grad_cond, grad_cond_i)
            return {name: grads[name] for name in items}, grad, grad_cond

        return z, vjp

    return Bijector(init, forward, inverse, rebuild)


def rebuild_of(layer: Bijector):
    """The layer's own `rebuild`, or one made of its inverse and of the derivative of its forward."""

    def rebuild(params, z, cond=None, key=None):
        weights, constants = partition(params)
        x = jax.lax.stop_gradient(layer.inverse(params, z, cond, key)[0])
        _, vjp = jax.vjp(lambda w, x, c: layer.forward(combine(w, constants), x, c, key), weights, x, cond)
        return x, lambda grad_z, grad_log_det: vjp((grad_z, grad_log_det))

    return layer.rebuild or rebuild


def _layer_key(key, i):
    return None if key is None else jax.random.fold_in(key, i)


def invert(layer: Bijector) -> Bijector:
    """The inverse map as a bijector: forward and inverse change places.

    `init` evaluates the layer's own init on x only to learn shapes and initialize; the example that it passes on
    is layer.inverse(x).
    """

    def init(key, x, cond=None):
        params, _ = layer.init(key, x, cond)
        return params, layer.inverse(params, x, cond)[0]

    return Bijector(init, layer.inverse, layer.forward)


def repeat(layer: Bijector, num_layers: int, memory: str = "store") -> Bijector:
    """`num_layers` copies of a layer with stacked parameters, as one `lax.scan`: compile time is flat in depth.

    Args:
      memory: what the backward pass keeps. 'store': every intermediate (fastest on accelerators with room);
        'remat': each layer's input and its conditioner's output, the rest is computed again; 'invert': only the
        output, inputs are rebuilt by the inverse, so training memory does not grow with depth beyond the parameters'
        own gradients. 'invert' needs an accurate inverse; a coupling evaluates its conditioner once for both.

    >>> repeat(identity(), 3).forward({}, jnp.ones((1, 2)))[0].shape
    (1, 2)

    Reference: Gomez et al. (2017), The Reversible Residual Network, arXiv:1707.04585 (memory='invert').
    """
    if memory not in MEMORY:
        raise ValueError(f"memory={memory!r}: expected one of {', '.join(MEMORY)}")

    def init(key, x, cond=None):
        def body(x, key_i):
            params, z = layer.init(key_i, x, cond)
            return z, params

        z, params = jax.lax.scan(body, x, jax.random.split(key, num_layers))
        return params, z

    def forward(params, x, cond=None, key=None):
        return run(params, x, cond, _layer_keys(key, num_layers))

    def inverse(params, z, cond=None, key=None):
        return _scan(layer.inverse, num_layers, params, z, cond, _layer_keys(key, num_layers), reverse=True)

    run = {
        "store": lambda *args: _scan(layer.forward, num_layers, *args),
        "remat": lambda *args: _scan(jax.checkpoint(layer.forward, policy=KEEP_CONDITIONERS), num_layers, *args),
        "invert": _reversible_scan(layer, num_layers),
    }[memory]
    return Bijector(init, forward, inverse)


def _layer_keys(key, num_layers):
    return None if key is None else jax.random.split(key, num_layers)


def _scan(function, num_layers, params, x, cond, keys, reverse=False):
    def body(carry, layer_inputs):
        x, total = carry
        params_i, key_i = layer_inputs
        x, log_det = function(params_i, x, cond, key_i)
        return (x, total + log_det), None

    (x, log_det), _ = jax.lax.scan(body, (x, _zero_log_det(x)), (params, keys), num_layers, reverse)
    return x, log_det


def _zero_log_det(x):
    leaf = jax.tree.leaves(x)[0]
    return jnp.zeros(leaf.shape[0], jnp.promote_types(leaf.dtype, jnp.float32))


def _reversible_scan(layer, num_layers):
    """Forward scan whose backward pass walks from the output back to the input, layer by layer."""

    def run(params, x, cond, keys):
        return reversible(*partition(params), x, cond, keys)

    @jax.custom_vjp
    def reversible(weights, constants, x, cond, keys):
        return _scan(layer.forward, num_layers, combine(weights, constants), x, cond, keys)

    def save_output(*args):
        z, log_det = reversible(*args)
        weights, constants, _, cond, keys = args
        return (z, log_det), (weights, constants, z, cond, keys)

    def walk_back(saved, cotangents):
        weights, constants, z, cond, keys = saved
        grad_z, grad_log_det = cotangents

        def body(carry, layer_inputs):
            z, grad_z, grad_cond = carry
            weights_i, constants_i, key_i = layer_inputs
            x, vjp = rebuild_of(layer)(combine(weights_i, constants_i), z, cond, key_i)
            grad_weights, grad_x, grad_cond_i = vjp(grad_z, grad_log_det)
            return (x, grad_x, jax.tree.map(jnp.add, grad_cond, grad_cond_i)), grad_weights

        start = (z, grad_z, jax.tree.map(jnp.zeros_like, cond))
        layers = (weights, constants, keys)
        (_, grad_x, grad_cond), grad_weights = jax.lax.scan(body, start, layers, num_layers, reverse=True)
        return grad_weights, None, grad_x, grad_cond, None

    reversible.defvjp(save_output, walk_back)
    return run


def factor_out(rest: Bijector | None = None) -> Bijector:
    """Splits the channels in half: x -> (rest(x1), x2). Nothing is discarded, both are latents.

    A learned prior of x2 given x1 is `split_prior` in front of it. Without `rest`, x1 passes unchanged.

    >>> [z.shape for z in factor_out().forward({}, jnp.zeros((1, 4, 4, 6)))[0]]
    [(1, 4, 4, 3), (1, 4, 4, 3)]

    Reference: Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803, section 3.6.
    """
    rest = identity() if rest is None else rest

    def init(key, x, cond=None):
        x1, x2 = jnp.split(x, 2, axis=-1)
        params, z1 = rest.init(key, x1, cond)
        return params, (z1, x2)

    def forward(params, x, cond=None, key=None):
        x1, x2 = jnp.split(x, 2, axis=-1)
        z1, log_det = rest.forward(params, x1, cond, key)
        return (z1, x2), log_det

    def inverse(params, z, cond=None, key=None):
        z1, x2 = z
        x1, log_det = rest.inverse(params, z1, cond, key)
        return jnp.concatenate([x1, x2], axis=-1), log_det

    return Bijector(init, forward, inverse)


def identity() -> Bijector:
    """Z = x, log-det 0."""
    return fixed(lambda x: x, lambda z: z)


def fixed(forward, inverse) -> Bijector:
    """A parameter-free, volume-preserving rearrangement as a bijector."""
    return Bijector(
        lambda key, x, cond=None: ({}, forward(x)),
        lambda params, x, cond=None, key=None: (forward(x), _zero_log_det(x)),
        lambda params, z, cond=None, key=None: (inverse(z), _zero_log_det(z)),
    )
