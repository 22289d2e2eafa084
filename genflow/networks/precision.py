"""In which precision networks compute, chosen when they are built.

`compute.network_precision` is one of PRECISIONS. Parameters, their gradients and what leaves a network are float32
whatever it is, so all that bijectors, likelihoods, losses and optimizers do is, too.

* `bfloat16`: parameters and inputs are rounded where `apply` begins, and activations inside are bfloat16.
* `tensorfloat32`: matrix products and convolutions of networks, and their gradients, may round operands to 10 bits.

Inside networks in bfloat16, what is sensitive is float32 all the same: statistics of normalizations, attention weights,
sums over pixels, norms of weights, cells of LSTMs, embedded times, and sums in gradients: over examples and pixels, on
one device and over those that share the batch, and over the steps of a scan. What several uses of one array add to its
gradient is added in bfloat16; so is, over devices, the gradient of a gradient penalty.

Reference: Micikevicius et al. (2018), Mixed precision training, arXiv:1710.03740; Kalamkar et al. (2019), A study of
bfloat16 for deep learning training, arXiv:1905.12322.
"""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from genflow.networks.rewrite import rewritten

PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
CALLS = ("apply", "start", "step", "init_cache", "generate")  # of the kinds of networks; `init` is float32
CACHES = ("start", "init_cache")  # what they return stays inside the network
STATIC = ("draw", "training", "num", "batch_size")  # arguments that are no arrays
AS_THEY_ARE = ("key", "state", "like", "cache", *STATIC)
INPUTS = ("x", "cond")
REPEATING = ("broadcast_in_dim", "gather")  # the gradients of their first operand are sums
ELEMENTWISE = ("add", "sub", "mul", "div", "max", "min", "pow")  # so are theirs, where shapes differ
PRODUCTS = {"dot_general": jax.lax.dot_general_p, "conv_general_dilated": jax.lax.conv_general_dilated_p}
_current = contextvars.ContextVar("network_precision", default="float32")


@contextlib.contextmanager
def network_precision(precision: str) -> Iterator[None]:
    """Networks that are built inside compute in this precision.

    Raises:
      ValueError: none of PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"network_precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    token = _current.set(precision)
    try:
        yield
    finally:
        _current.reset(token)


def current_precision() -> str:
    """That of networks which are built here."""
    return _current.get()


def precise(builder: Callable | None = None, *, exact_inputs: bool = False) -> Callable:
    """Decorator of what builds networks, or builders of them: those take the precision of where it is called.

    Networks that are parts of others have no precision of their own: activations between them stay as they are.

    Args:
      exact_inputs: x and cond come unrounded, as float32, and the network itself brings them to the dtype of its
        parameters after what must see them so: noisy data next to t = 0, times.
    """
    if builder is None:
        return functools.partial(precise, exact_inputs=exact_inputs)

    @functools.wraps(builder)
    def build(*args, **kwargs):
        return as_built(builder, exact_inputs)(*args, **kwargs)

    return build


def as_built(builder: Callable, exact_inputs: bool = False) -> Callable:
    """The builder, which keeps the precision of where this is called, wherever it is called itself."""
    precision = current_precision()

    def build(*args, **kwargs):
        with network_precision("float32"):
            made = builder(*args, **kwargs)
        if precision == "float32":
            return made
        return _converted(made, precision, exact_inputs) if isinstance(made, tuple) else rebuilt(made)

    def rebuilt(inner):
        with network_precision(precision):
            return as_built(inner, exact_inputs)

    return build


def wide(a: Array) -> Array:
    """As float32, or wider where it is: for what rounding to 8 bits would spoil."""
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def inner_dtype(x: Array, kernel: Array) -> jnp.dtype:
    """Of activations after the layer that has seen x as it is, given that layer's kernel."""
    return kernel.dtype if kernel.dtype == jnp.bfloat16 else x.dtype


def rounded(total: Array) -> Array:
    """A sum over examples as bfloat16. XLA moves a mere cast to what each device adds, but not `reduce_precision`."""
    return jax.lax.reduce_precision(total, 8, 7).astype(jnp.bfloat16)


@jax.custom_vjp
def _summed(a):
    """The bfloat16 array as float32; its gradient is a sum."""
    return wide(a)


_summed.defvjp(lambda a: (wide(a), None), lambda _, g: (rounded(g),))


def wide_products(function: Callable) -> Callable:
    """The function, whose products of bfloat16 arrays leave in float32 and whose results are rounded at the end.

    The numbers are the same on one device. What several devices add up, they add in float32: a compiler puts that sum
    where the product leaves.

    Args:
      function: (arrays) -> array, which does nothing with products but move their entries.
    """

    def run(*arrays):
        if not all(map(_is_narrow, arrays)):
            return function(*arrays)
        return rounded(rewritten(function, _leaving_wide)(*arrays))

    return run


def gradients(product: Callable, x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    """Those of x and of the kernel, the latter as a sum in float32, given that of product(x, kernel)."""
    grad_x = jax.vjp(lambda x: product(x, kernel), x)[1](g)[0]
    grad_kernel = wide_products(lambda x, kernel, g: jax.vjp(lambda k: product(x, k), kernel)[1](g)[0])
    return grad_x, grad_kernel(x, kernel, g)


def matmul_precision() -> str | None:
    """That of matrix products here, for a derivative that is traced elsewhere (`jax.default_matmul_precision`)."""
    return jax.config.jax_default_matmul_precision


def _converted(network, precision, exact_inputs):
    convert = functools.partial(_in_bfloat16, exact_inputs) if precision == "bfloat16" else _in_tensorfloat32
    calls = {name: getattr(network, name) for name in CALLS if name in network._fields}
    return network._replace(**{name: convert(name, function) for name, function in calls.items()})


def _in_tensorfloat32(name, function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        with jax.default_matmul_precision("tensorfloat32"):
            return function(*args, **kwargs)

    return run


def _in_bfloat16(exact_inputs, name, function):
    signature, untouched = inspect.signature(function), AS_THEY_ARE + (INPUTS if exact_inputs else ())

    @functools.wraps(function)
    @jax.named_scope("bfloat16")
    def run(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        given |= {k: _cast(a, jnp.float32, jnp.bfloat16) for k, a in given.items() if k not in untouched}
        static = {k: given.pop(k) for k in STATIC if k in given}
        if draw := static.pop("draw", None):
            static["draw"] = lambda d, raw, state: draw(d, wide(raw), state)
        out = rewritten(lambda arrays: function(**arrays, **static), _with_wide_sums)(given)
        return _leaving(name, out)

    return run


def _leaving(name, out):
    if name in CACHES:
        return out
    return (wide(out[0]), out[1]) if name == "step" else _cast(out, jnp.bfloat16, jnp.float32)


def _cast(tree: PyTree, before: jnp.dtype, after: jnp.dtype) -> PyTree:
    return jax.tree.map(lambda a: a.astype(after) if getattr(a, "dtype", None) == before else a, tree)


def _with_wide_sums(name, params, do, operands):
    """What is repeated in the forward pass is summed in the backward pass: in bfloat16 only the first few would count.

    The values are the same, being rounded already; the way there and back is what differentiation sees.
    """
    if name in REPEATING and _is_narrow(operands[0]):
        return [out.astype(jnp.bfloat16) for out in do([_summed(operands[0]), *operands[1:]])]
    if name in ELEMENTWISE and any(map(_is_narrow, operands)):
        shape = jnp.broadcast_shapes(*(jnp.shape(a) for a in operands))
        operands = [_repeated(a, shape) for a in operands]
    if name == "convert_element_type" and _is_narrow(operands[0]) and params["new_dtype"] == jnp.float32:
        return [_summed(operands[0])]
    if name == "scan" and "num_consts" in params:  # JAX 0.12 has another form: there they stay bfloat16
        num = params["num_consts"]  # their gradients are sums over the steps
        operands = [_summed(a) if _is_narrow(a) else a for a in operands[:num]] + operands[num:]
    if name in PRODUCTS and all(map(_is_narrow, operands)) and not _is_batched(name, params):
        return [_with_wide_gradient(name, lambda *factors: do(factors)[0])(*operands)]
    return do(operands)


def _is_batched(name, params):
    """Of two activations: a kernel is shared by the examples."""
    return name == "dot_general" and any(params["dimension_numbers"][1])


def _with_wide_gradient(name, product):
    wrapped = jax.custom_vjp(product)
    wrapped.defvjp(lambda *factors: (product(*factors), factors), functools.partial(_both_gradients, name, product))
    return wrapped


def _both_gradients(name, product, saved, g):
    """A matrix on the right is the kernel; where it is none (`jnp.einsum` swaps them), the left factor may be it."""
    if name != "dot_general" or saved[1].ndim == 2:
        return gradients(product, *saved, g)
    left = gradients(lambda b, a: product(a, b), *saved[::-1], g)[1]
    return left, gradients(product, *saved, g)[1]


def _leaving_wide(name, params, do, operands):
    """The derivative of this derivative is that of the narrow product."""
    if name not in PRODUCTS or not all(map(_is_narrow, operands)):
        return do(operands)
    wanted = params | {"preferred_element_type": jnp.dtype(jnp.float32)}
    product = jax.custom_vjp(lambda *factors: PRODUCTS[name].bind(*factors, **wanted))

    def backward(saved, g):
        return jax.vjp(lambda *factors: do(factors)[0], *saved)[1](g.astype(jnp.bfloat16))

    product.defvjp(lambda *factors: (product(*factors), factors), backward)
    return [product(*operands)]


def _is_narrow(a):
    return getattr(a, "dtype", None) == jnp.bfloat16


def _repeated(a, shape):
    if jnp.shape(a) == shape or not isinstance(a, jax.core.Tracer) or not _is_narrow(a):
        return a
    return jnp.broadcast_to(_summed(a), shape).astype(a.dtype)
