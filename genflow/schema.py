"""What a configuration may hold: its fields by dotted path, their types, ranges and choices, and text put into them.

The fields and rules are those of configs/common.py, which every function here that needs them is given as `common`.
"""

import ast
import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from types import ModuleType

from ml_collections import ConfigDict

from genflow.errors import UserError
from genflow.rules import axes_fault

LARGEST = 2**31 - 1  # steps and seeds are 32-bit integers on the device
FILLED = ("name", "paper", "expect")  # from the experiment's file
EXPECTED = {bool: "true or false", int: "an integer", float: "a number", str: "text", tuple: "a tuple"}
ANY = (object, ...)
# The form of a tuple whose default is empty (`...`: any number of these), with an example.
FORMS = {
    "data.crop": ((int, int, int, int), (40, 15, 148, 148)),
    "optimizer.milestones": (((int, float), ...), ((20_000, 0.1), (30_000, 0.01))),
    "sharding.rules": (((str, (str, ...)), ...), (("kernel", ("", "model")),)),
}


def shown(value: object, most: int = 60) -> str:
    """A value as one short printable line of an error message."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def fields(config: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted path, value) of every leaf of a configuration."""
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from fields(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nearest(field: str, known: Collection[str]) -> str:
    """The field that was probably meant: with the same last word or its initials, else the most alike; '' if none."""
    last = field.rpartition(".")[2]
    words = {k: k.rpartition(".")[2] for k in known}
    initials = {k: "".join(part[:1] for part in word.split("_")) for k, word in words.items()}
    same = [k for k in known if last == words[k] or (len(last) > 1 and last == initials[k])]
    near = difflib.get_close_matches(field, same, 1, 0.0) or difflib.get_close_matches(field, known, 1, 0.75)
    return near[0] if near else ""


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets one field from the command line, converted to the type that it has."""
    known = dict(fields(config))
    if field in FILLED:
        raise UserError(f"--config.{field} comes from the experiment's file; --workdir=DIR names a run")
    name = _common_name(field)  # a parameter group may be given any field of the optimizer that it has not yet
    if field not in known and name not in known:
        raise UserError(f"--config.{shown(field)}: no such field; {_field_hint(config, field)}")
    *parents, leaf = field.split(".")
    section = config
    for parent in parents:
        if parent not in section:
            section[parent] = ConfigDict()
        section = section[parent]
    section[leaf] = convert(field, text, known.get(field, known.get(name)))


def _field_hint(config, field):
    known = [path for path, _ in fields(config) if path not in FILLED]
    inside = [path for path in known if path.startswith(f"{field}.")]
    if inside or field == "optimizer.groups":
        return f"it is a section, set --config.{inside[0]}" if inside else "it is filled in the experiment's file"
    if near := nearest(field, known):
        return f"did you mean --config.{near}?"
    section = field.partition(".")[0]
    keys = [path.partition(".")[2] for path in known if path.startswith(f"{section}.")]
    return f"config.{section} has {', '.join(keys)}" if keys else "see --help for the fields"


def convert(field: str, text: str, current: object) -> object:
    """Text to the type of the current value: bool, int, float, str or tuple."""
    kind = type(current)
    form, example = form_of(field, current)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is tuple:
            return cast_tuple(ast.literal_eval(text or "()"), form)
        return kind(text)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(f"--config.{field}={shown(text)}: expected {EXPECTED[kind]} such as {example!r}") from error


def form_of(field: str, current: object) -> tuple[tuple, object]:
    """The form of a tuple field (see FORMS) and an example of a value of any field."""
    if field in FORMS or not isinstance(current, tuple) or not current:
        return FORMS.get(field, (ANY, current if current != () else (1, 2)))
    return (type(current[0]), ...), current


def cast_tuple(value: object, form: tuple) -> tuple:
    """A tuple (or list) brought to a form: integers to float where that is asked for.

    Raises:
      TypeError, ValueError: an element of another type, or too few or many of them.
    """
    if not isinstance(value, tuple | list):
        raise TypeError(value)
    forms = form[:1] * len(value) if ... in form or not value else form
    return tuple(_cast(v, f) for v, f in zip(value, forms, strict=True))


def _cast(value, form):
    if form is object and isinstance(value, tuple | list):
        return cast_tuple(value, ANY)
    if isinstance(form, tuple):
        return cast_tuple(value, form)
    allowed = {float: (float, int), object: tuple(EXPECTED)}.get(form, (form,))
    if type(value) not in allowed:
        raise TypeError(value)
    return float(value) if form is float else value


def check_fields(config: ConfigDict, common: ModuleType) -> None:
    """Raises UserError for a field that `common` does not have, has with another type, or has and `config` has not."""
    known, found = dict(fields(common.base())), dict(fields(config))
    for field, value in found.items():
        name = _common_name(field)
        if name not in known and not field.startswith("model."):
            near = nearest(name, known)
            raise UserError(f"config.{field}: no such field" + f"; did you mean config.{near}?" * bool(near))
        if fault := _type_fault(type(value), known.get(name)):
            raise UserError(f"config.{field}={shown(repr(value))}: {fault}")
    if missing := [field for field in known if field not in found]:
        raise UserError(f"config.{missing[0]} is missing; get_config starts from configs.common.base()")


def _type_fault(kind, default):
    if default is None:  # an argument of the model's builder, which the command line must be able to set
        return "" if kind in EXPECTED else f"expected {', '.join(EXPECTED.values())}; not {kind.__name__}"
    return "" if kind is type(default) else f"expected {EXPECTED[type(default)]}, not {kind.__name__}"


def _common_name(field):
    """The field of configs/common.py that says what a field may be: a group's learning rate is a learning rate."""
    return re.sub(r"^optimizer\.groups\.[^.]+\.", "optimizer.", field)


def validate(config: ConfigDict, common: ModuleType) -> None:
    """Raises UserError for a number, choice, pattern or tuple that its field cannot have."""
    known = dict(fields(common.base()))
    for field, value in fields(config):
        name = _common_name(field)
        if fault := _fault(name, value, known.get(name, ()), common):
            raise UserError(f"--config.{field}={shown(value)}: {fault}")


def _fault(field, value, default, common):
    """What is wrong with a value, '' if nothing."""
    for element in value if isinstance(value, tuple) else (value,):
        if isinstance(element, int | float) and (fault := _number_fault(field, element, common)):
            return fault
    if value not in common.CHOICES.get(field, (value,)):
        near = difflib.get_close_matches(str(value), common.CHOICES[field], 1, 0.5)
        return f"expected one of {', '.join(common.CHOICES[field])}" + (f"; did you mean {near[0]}?" if near else "")
    if isinstance(value, tuple):
        return _tuple_fault(field, value, default)
    return _pattern_fault(value) if field == "optimizer.decay_pattern" else ""


def _number_fault(field, number, common):
    is_signed = field in common.SIGNED or (field.startswith("model.") and isinstance(number, float))
    faults = {
        "must be finite": not math.isfinite(number),
        "must not be negative": number < 0 and not is_signed,
        "must be above zero": number <= 0 and field in common.POSITIVE,
        "must be below one": number >= 1 and field in common.BELOW_ONE,
        f"must be at most {LARGEST}": isinstance(number, int) and number > LARGEST,
    }
    return next((fault for fault, is_true in faults.items() if is_true), "")


def _tuple_fault(field, value, default):
    form, example = form_of(field, default)
    try:
        cast_tuple(value, form)
    except (TypeError, ValueError):
        return f"expected a tuple such as {example!r}"
    rules = value if field == "sharding.rules" else ()
    return next(filter(None, (_pattern_fault(pattern) or axes_fault(axes) for pattern, axes in rules)), "")


def _pattern_fault(pattern):
    try:
        re.compile(pattern)
    except re.error as error:
        return f"not a regular expression: {error}"
    return ""
