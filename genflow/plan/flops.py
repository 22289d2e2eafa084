"""Floating-point operations of a traced function, counted on its jaxpr: a loop's body as often as it runs.

XLA's own cost analysis counts the body of a loop once, however long the loop.
"""

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

HALF = ("bfloat16", "float16")
MOVES = frozenset(
    "broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_slice dynamic_update_slice gather iota pad "
    "random_bits random_fold_in random_unwrap random_wrap reshape rev scatter select_n sharding_constraint slice "
    "squeeze stop_gradient transpose".split()
)  # primitives that compute nothing


def _factorization(share):
    """Of batches of matrices [*, n, n]: 2 n^3 / 3 in an LU decomposition, half as many where they are symmetric."""
    return lambda equation: int(share * _volume(equation.invars[0]) * equation.invars[0].aval.shape[-1])


def _volume(variable):
    return math.prod(variable.aval.shape)


SOLVERS = {
    "triangular_solve": lambda e: _volume(e.invars[1]) * e.invars[0].aval.shape[-1],  # n^2 m
    "cholesky": _factorization(1 / 3),
    "lu": _factorization(2 / 3),
}


class Work(NamedTuple):
    """Operations of all devices together."""

    matrix: Counter  # of matrix products and convolutions, 2 for each multiplication: {precision of factors: number}
    elementwise: int  # one for each number that another primitive makes
    open_loops: int  # loops whose number of turns the program finds out: their bodies are counted once


def count(jaxpr: Any) -> Work:
    """The work of a ClosedJaxpr. Of a conditional the dearest branch counts, of an open loop one turn.

    The precision of a matrix product of float32 is 'float32', 'tensorfloat32' or 'bfloat16' where the program asks
    for it (HIGHEST, HIGH, an algorithm), and else 'default'; one of 16-bit factors is 'bfloat16'.
    """
    works = [_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns]
    return _sum(works)


def _sum(works):
    matrix = sum((work.matrix for work in works), Counter())
    return Work(matrix, sum(work.elementwise for work in works), sum(work.open_loops for work in works))


def _times(work, number):
    matrix = Counter({precision: number * n for precision, n in work.matrix.items()})
    return Work(matrix, number * work.elementwise, work.open_loops)


def _equation(equation):
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return Work(Counter({_precision(equation): dot_flops(equation)}), 0, 0)
    if name == "conv_general_dilated":
        return Work(Counter({_precision(equation): convolution_flops(equation)}), 0, 0)
    if name in SOLVERS:
        return Work(Counter({"float32": SOLVERS[name](equation)}), 0, 0)
    if name == "custom_linear_solve":
        return count(params["jaxprs"].solve)
    if name == "cond":
        branches = [count(branch) for branch in params["branches"]]
        return max(branches, key=lambda work: (work.matrix.total(), work.elementwise))
    inner = _sum([count(jaxpr) for jaxpr in _jaxprs(params)])
    if name == "scan":
        return _times(inner, params["length"])
    if name == "while":
        return inner._replace(open_loops=inner.open_loops + 1)
    if name == "shard_map":
        return _times(inner, params["mesh"].size)
    return inner if any(True for _ in _jaxprs(params)) else Work(Counter(), _numbers(equation), 0)


def _jaxprs(params):
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _numbers(equation):
    if equation.primitive.name in MOVES:
        return 0
    return sum(math.prod(v.aval.shape) for v in equation.outvars if hasattr(v.aval, "shape"))


def _precision(equation):
    """Which units do it: the dtype of the factors, then what the program asks for."""
    if any(str(v.aval.dtype) in HALF for v in equation.invars[:2]):
        return "bfloat16"
    asked = equation.params["precision"]
    asked = str(asked[0] if isinstance(asked, tuple) else asked).upper()
    if "HIGHEST" in asked or "F32_F32_F32" == asked.rpartition(".")[2]:
        return "float32"
    if asked.rpartition(".")[2] == "HIGH" or "TF32" in asked or "_X3" in asked:
        return "tensorfloat32"
    return "bfloat16" if "BF16" in asked else "default"


def dot_flops(equation: Any) -> int:
    """2 for each multiplication of a dot_general."""
    (contracting, _), _ = equation.params["dimension_numbers"]
    factor = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(factor[i] for i in contracting)


def convolution_flops(equation: Any) -> int:
    """2 for each multiplication of a convolution with a value that is there: none for padding and dilation."""
    params = equation.params
    numbers = params["dimension_numbers"]
    x, kernel, out = (v.aval.shape for v in (*equation.invars, equation.outvars[0]))
    layouts = ((x, numbers.lhs_spec), (kernel, numbers.rhs_spec), (out, numbers.out_spec))
    pairs = 1
    for i, padding in enumerate(params["padding"]):
        sizes = (shape[spec[2 + i]] for shape, spec in layouts)
        dilations = params["lhs_dilation"][i], params["rhs_dilation"][i]
        pairs *= _pairs(*sizes, params["window_strides"][i], padding[0], *dilations)
    outputs = out[numbers.out_spec[0]] * out[numbers.out_spec[1]]
    return 2 * outputs * kernel[numbers.rhs_spec[1]] * pairs


def _pairs(size, window, outputs, stride, padding, x_dilation, window_dilation):
    """How many (output, kernel) positions of one axis meet a value of the input."""
    at = np.arange(outputs)[:, None] * stride - padding + np.arange(window) * window_dilation
    return int(((at >= 0) & (at <= (size - 1) * x_dilation) & (at % x_dilation == 0)).sum())
