"""Functions rewritten by what their traces are made of: one operation replaced, everywhere, loops included."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, DebugInfo, DropVar, Jaxpr, Literal, jaxpr_as_fun

Rule = Callable  # (name of an operation, its parameters, what does it: operands -> outputs, operands) -> outputs


def rewritten(function: Callable, rule: Rule, derivatives: bool = True) -> Callable:
    """The function, of which `rule` does every operation.

    Both are pure functions of arrays (trees of arrays, and None).

    Args:
      derivatives: functions with a derivative of their own (`jax.custom_vjp`) keep it, and what they do inside is left
        as it is; False: that is rewritten too, and cannot be differentiated.
    """
    if not derivatives:
        rule = functools.partial(_opened, rule)

    def run(*arguments):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        out = _evaluate(closed, jax.tree.leaves(arguments), rule)
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return run


def _opened(rule, name, params, do, operands):
    if name.startswith("custom_"):
        inner = params["call_jaxpr"] if "call_jaxpr" in params else params["fun_jaxpr"]
        return _evaluate(inner, operands, functools.partial(_opened, rule))
    return rule(name, params, do, operands)


def _evaluate(closed, operands, rule):
    jaxpr, values = closed.jaxpr, {}

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    values.update(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *operands), strict=True))
    for equation in jaxpr.eqns:
        do, operands = functools.partial(_bound, equation, rule), [read(atom) for atom in equation.invars]
        out = rule(equation.primitive.name, equation.params, do, operands)
        values.update(zip(equation.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bound(equation, rule, operands):
    if equation.primitive.name.startswith("custom_"):
        return _as_it_is(equation, operands)
    params = {name: _inside(value, rule) for name, value in equation.params.items()}
    if equation.primitive.name == "scan" and "num_consts" in params:
        params["jaxpr"] = _body(equation.params, rule, operands)
    out = equation.primitive.bind(*operands, **params)
    return out if equation.primitive.multiple_results else [out]


def _body(params, rule, operands):
    """Of a scan, of whose constants the rule may have changed the dtype: the body brings them back to their own."""
    inner, num = params["jaxpr"], params["num_consts"]
    given = [jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in operands[:num]]

    def body(*arguments):
        pairs = zip(arguments, inner.in_avals, strict=True)
        return _evaluate(inner, [a if a.dtype == aval.dtype else a.astype(aval.dtype) for a, aval in pairs], rule)

    return jax.make_jaxpr(body)(*given, *inner.in_avals[num:])


def _as_it_is(equation, operands):
    """An equation as a program of its own: what binds functions to operations differs among versions of JAX."""
    given = [(atom, a) for atom, a in zip(equation.invars, operands, strict=True) if not isinstance(atom, Literal)]
    given = dict(given)  # one atom may be an operand twice
    wanted = [atom for atom in equation.outvars if not isinstance(atom, DropVar)]
    program = Jaxpr((), list(given), wanted, [equation], equation.effects, DebugInfo("rewritten", "", None, None))
    out = dict(zip(wanted, jaxpr_as_fun(ClosedJaxpr(program, ()))(*given.values()), strict=True))
    return [out[atom] if atom in out else None for atom in equation.outvars]


def _inside(value, rule):
    """The body of a loop, of a branch, of a checkpoint: rewritten too."""
    if isinstance(value, ClosedJaxpr):
        return jax.make_jaxpr(lambda *a: _evaluate(value, a, rule))(*value.in_avals)
    if isinstance(value, Jaxpr):
        return _inside(ClosedJaxpr(value, ()), rule).jaxpr
    if isinstance(value, tuple) and value and all(isinstance(v, ClosedJaxpr) for v in value):
        return tuple(_inside(v, rule) for v in value)
    return value
