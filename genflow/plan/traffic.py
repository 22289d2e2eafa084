"""Bytes that a compiled program moves between a device and its memory, read off the text of its optimized HLO."""

import math
import re

from genflow import hlo

SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^{}]*))?\})?")
FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast after-all partition-id replica-id add-dependency domain "
    "opt-barrier copy-done".split()
)  # they move nothing
CUTS = ("dynamic-slice", "slice", "gather")  # they read as much as they make
VIEWS = ("bitcast", "reshape", "copy", "convert")  # inside a fusion, the same numbers


def memory_bytes(text: str, steps_per_call: int = 1) -> float:
    """Bytes that one device reads from and writes to its main memory in one train step.

    Every instruction outside a fusion reads its operands and writes its result; of what is only sliced, or updated in
    place, the part counts. A loop's body counts as often as it runs, and once where the program finds that out. The
    loop over the steps of a call, whose number is an argument, counts once, and what is around it is shared by them. Of
    a conditional the dearest branch counts. What is in a TPU's on-chip memory costs nothing, what is in its main memory
    as much as its tiles.
    """
    module, memo = hlo.parse(text), {}
    steps = hlo.steps(module)
    inside = sum(_total(module, hlo.named(loop, "body"), memo) for loop in steps)
    return inside + (_total(module, module.entry, memo) - inside) / (steps_per_call if steps else 1)


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
    return math.prod(sizes) * hlo.bits(dtype) // 8


def _total(module, name, memo):
    """Bytes of one run of a computation outside fusions."""
    if name not in memo:
        lines = module.computations.get(name, [])
        shapes = {line.name: line.shape for line in lines}
        memo[name] = sum(_moved(module, line, shapes, memo) for line in lines)
    return memo[name]


def _moved(module, line, shapes, memo):
    if line.opcode == "while":
        return (hlo.trip_count(module, line) or 1) * _total(module, hlo.named(line, "body"), memo)
    if line.opcode == "conditional":
        return max((_total(module, name, memo) for name in hlo.names(hlo.BRANCHES, line)), default=0)
    if line.opcode in ("call", "async-start") and (called := hlo.names(hlo.CALLED, line)):
        return _total(module, called[0], memo)
    if line.opcode in FREE or line.opcode.endswith(("-done", "-update")) or "AllocateBuffer" in line.rest:
        return 0
    if line.opcode.endswith("-start"):
        return nbytes(line.shape)  # (result, operand, context): each side once
    operands = [shapes.get(name, "") for name in line.operands]
    if line.opcode == "fusion" and (called := hlo.names(hlo.CALLED, line)):
        return _fused(module, called[0], operands)
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


def _fused(module, name, operands):
    """What a fusion reads of its operands, and writes."""
    lines = module.computations.get(name, [])
    parameters = {int(line.rest[10:].partition(")")[0]): line for line in lines if line.opcode == "parameter"}
    read = sum(min(nbytes(shape), _read(module, lines, parameters[i], shape)) for i, shape in enumerate(operands))
    return read + sum(_written(lines, line) for line in lines if line.is_root)


def _read(module, lines, source, shape):
    """Bytes that a fusion reads of one operand: all, unless everything that uses it takes a part or writes a part."""
    whole, total = nbytes(shape), 0
    for line in lines:
        if source.name not in line.operands:
            continue
        at = line.operands.index(source.name)
        if line.opcode in CUTS and at == 0:
            total += nbytes(line.shape)
        elif line.opcode == "fusion" and (called := hlo.names(hlo.CALLED, line)):
            inner = module.computations.get(called[0], [])
            parameter = next(p for p in inner if p.opcode == "parameter" and p.rest.startswith(f"parameter({at})"))
            total += _read(module, inner, parameter, shape)
        elif line.opcode in VIEWS and not line.is_root:
            total += _read(module, lines, line, shape)
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
