"""Bytes that a compiled program moves between a device and its memory, read off the text of its optimized HLO."""

import math
import re
from typing import NamedTuple

from genflow.collectives import HEADER, INSTRUCTION, NAME

SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^{}]*))?\})?")
FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast after-all partition-id replica-id add-dependency domain "
    "opt-barrier copy-done".split()
)  # they move nothing
CUTS = ("dynamic-slice", "slice", "gather")  # they read as much as they make
CALLS = re.compile(rf"\b(?:calls|to_apply)={NAME}")
BRANCHES = re.compile(rf"branch_computations=\{{([^}}]*)\}}|(?:true|false)_computation={NAME}")
VIEWS = ("bitcast", "reshape", "copy", "convert")  # inside a fusion, the same numbers


class Line(NamedTuple):
    """NAME = SHAPE OPCODE(OPERANDS), ATTRIBUTES."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool


def memory_bytes(hlo: str, steps_per_call: int = 1) -> float:
    """Bytes that one device reads from and writes to its main memory in one train step.

    Every instruction outside a fusion reads its operands and writes its result; of what is only sliced, or updated in
    place, the part counts. A loop's body counts as often as it runs, and once where the program finds that out. The
    loop over the steps of a call, whose number is an argument, counts once, and what is around it is shared by them. Of
    a conditional the dearest branch counts. What is in a TPU's on-chip memory costs nothing, what is in its main memory
    as much as its tiles.
    """
    computations, entry = _parse(hlo)
    body = computations[entry]
    steps = [line for line in body if line.opcode == "while" and _trips(computations, line) is None]
    memo = {}
    inside = sum(_total(computations, _named(line, "body"), memo) for line in steps)
    return inside + (_total(computations, entry, memo) - inside) / (steps_per_call if steps else 1)


def nbytes(shape: str) -> int:
    """Bytes of main memory of an array or a tuple of arrays, with the padding of its tiles; 0 for on-chip memory."""
    return sum(_array_bytes(*match) for match in SHAPE.findall(shape))


def _array_bytes(dtype, dims, order, layout):
    if re.search(r"S\([1-9]", layout):
        return 0
    sizes = [int(size) for size in dims.split(",") if size]
    sizes = [sizes[int(i)] for i in order.split(",")] if order and sizes else sizes[::-1]  # the fastest first
    tile = re.match(r"T\(([\d,]+)\)", layout)
    for i, side in enumerate(reversed(tile[1].split(",")) if tile else ()):
        if i < len(sizes):
            sizes[i] = -(-sizes[i] // int(side)) * int(side)
    bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or [0])[0])
    return math.prod(sizes) * bits // 8


def _parse(hlo):
    computations, entry, body = {}, "", []
    for line in hlo.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line).strip()
        if match := INSTRUCTION.match(line):
            body.append(_line(match[1], match[2], line.startswith("ROOT ")))
        elif match := HEADER.match(line):
            body = computations[match[2]] = []
            entry = match[2] if match[1] else entry
    return computations, entry or next(reversed(computations))


def _line(name, text, is_root):
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].strip()
    opcode = rest.partition("(")[0]
    inside = rest[len(opcode) : _closing(rest, len(opcode))]
    return Line(name, shape, opcode, tuple(re.findall(r"%([\w.\-]+)", inside)), rest, is_root)


def _closing(text, start):
    """Where the parenthesis that opens at or after `start` has closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0 and text[i] == ")":
            return i + 1
    return len(text)


def _named(line, attribute):
    match = re.search(rf"\b{attribute}={NAME}", line.rest)
    return match[1] if match else ""


def _total(computations, name, memo):
    """Bytes of one run of a computation outside fusions."""
    if name not in memo:
        lines = computations.get(name, [])
        shapes = {line.name: line.shape for line in lines}
        memo[name] = sum(_moved(computations, line, shapes, memo) for line in lines)
    return memo[name]


def _moved(computations, line, shapes, memo):
    if line.opcode == "while":
        return (_trips(computations, line) or 1) * _total(computations, _named(line, "body"), memo)
    if line.opcode == "conditional":
        found = [name for pair in BRANCHES.findall(line.rest) for part in pair for name in re.findall(NAME, part)]
        return max((_total(computations, name, memo) for name in found), default=0)
    if line.opcode in ("call", "async-start") and (called := CALLS.search(line.rest)):
        return _total(computations, called[1], memo)
    if line.opcode in FREE or line.opcode.endswith(("-done", "-update")) or "AllocateBuffer" in line.rest:
        return 0
    if line.opcode.endswith("-start"):
        return nbytes(line.shape)  # (result, operand, context): each side once
    operands = [shapes.get(name, "") for name in line.operands]
    if line.opcode == "fusion" and (called := CALLS.search(line.rest)):
        return _fused(computations, called[1], operands)
    return _plain(line, operands)


def _plain(line, operands):
    sizes = [nbytes(shape) for shape in operands]
    if line.opcode in CUTS:
        return 2 * nbytes(line.shape) + sum(sizes[1:])
    if line.opcode == "dynamic-update-slice":
        return 2 * sum(sizes[1:2])
    if line.opcode == "scatter":
        return sum(sizes) - sizes[0] + sum(sizes[-1:])
    return sum(sizes) + nbytes(line.shape)


def _fused(computations, name, operands):
    """What a fusion reads of its operands, and writes."""
    lines = computations.get(name, [])
    parameters = {int(line.rest[10:].partition(")")[0]): line for line in lines if line.opcode == "parameter"}
    read = sum(min(nbytes(shape), _read(computations, lines, parameters[i], shape)) for i, shape in enumerate(operands))
    return read + sum(_written(lines, line) for line in lines if line.is_root)


def _read(computations, lines, source, shape):
    """Bytes that a fusion reads of one operand: all, unless everything that uses it takes a part or writes a part."""
    whole, total = nbytes(shape), 0
    for line in lines:
        if source.name not in line.operands:
            continue
        at = line.operands.index(source.name)
        if line.opcode in CUTS and at == 0:
            total += nbytes(line.shape)
        elif line.opcode == "fusion" and (called := CALLS.search(line.rest)):
            inner = computations.get(called[1], [])
            parameter = next(p for p in inner if p.opcode == "parameter" and p.rest.startswith(f"parameter({at})"))
            total += _read(computations, inner, parameter, shape)
        elif line.opcode in VIEWS and not line.is_root:
            total += _read(computations, lines, line, shape)
        elif line.opcode != "dynamic-update-slice" or at:
            return whole
    return total if whole else 0


def _written(lines, root):
    """Bytes that a fusion writes: of what it updates in place, the part."""
    by_name = {line.name: line for line in lines}
    while root.opcode in VIEWS and root.operands and root.operands[0] in by_name:
        root = by_name[root.operands[0]]
    if root.opcode == "tuple":
        return sum(_written(lines, by_name[name]) for name in root.operands)
    if root.opcode == "dynamic-update-slice" and nbytes(root.shape):
        return nbytes(by_name[root.operands[1]].shape)
    return nbytes(root.shape)


def _trips(computations, loop):
    """How often a loop's body runs; None where its text does not say."""
    if match := re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop.rest):
        return int(match[1])
    condition = list(computations.get(_named(loop, "condition"), []))
    for line in list(condition):
        condition += [inner for name in CALLS.findall(line.rest) for inner in computations.get(name, [])]
    constants = [re.match(r"constant\((\d+)\)", line.rest) for line in condition if line.opcode == "constant"]
    directions = [_named(line, "direction") for line in condition if line.opcode == "compare"]
    if len(constants) != 1 or not constants[0] or directions not in (["LT"], ["LE"]):
        return None
    return int(constants[0][1]) + (directions == ["LE"])
