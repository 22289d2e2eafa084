"""The collectives of a compiled program, read off the text of its optimized HLO: `compiled.as_text()`. Needs no JAX."""

import math
import re
from collections import Counter
from typing import NamedTuple

from genflow import hlo

KINDS = {
    "all-reduce": "all-reduce",
    "all-gather": "all-gather",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "ragged-all-to-all": "all-to-all",
    "collective-permute": "collective-permute",
    "collective-broadcast": "collective-permute",  # a device passes the payload on once
}


class Collective(NamedTuple):
    """Equal operations of a program that one device takes part in."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute
    nbytes: int  # payload of one execution on one device: the whole, gathered or not yet scattered, array
    group: int  # devices that exchange it
    count: int  # executions in one call of the program


def collectives(text: str) -> list[Collective]:
    """Every collective that one call of a program executes, the dearest first.

    A loop's body counts as often as its trip count says, or else the one constant that its condition compares with;
    where neither is there it counts once (`open_loops` tells how many these are). Of a conditional the dearest branch
    counts. Operations that XLA added to a program of one device have a group of 1.

    Args:
      text: the optimized module, in the form of any backend.
    """
    module = _parsed(text)
    found = [Collective(*key, count) for key, count in _tally(module, module.entry, {}).items()]
    return sorted(found, key=lambda c: (-c.count * wire_bytes(c), c))


def wire_bytes(collective: Collective) -> float:
    """Bytes that one device sends in one execution, by the algorithm on a ring."""
    n = collective.group
    if collective.kind == "collective-permute":
        return float(collective.nbytes)
    return (2 if collective.kind == "all-reduce" else 1) * (n - 1) / n * collective.nbytes


def sent_bytes(text: str, steps_per_call: int = 1) -> float:
    """Bytes that one device sends in one train step.

    The loop over the steps of a call, whose number is an argument, counts once; what is around it is shared by them.
    """
    module, memo = _parsed(text), {}
    steps = hlo.steps(module)
    inside = sum(_cost(_tally(module, hlo.named(loop, "body"), memo)) for loop in steps)
    return inside + (_cost(_tally(module, module.entry, memo)) - inside) / (steps_per_call if steps else 1)


def open_loops(text: str) -> int:
    """How many loops with collectives run so often as the program's arguments say: `collectives` counts them once."""
    module, memo = _parsed(text), {}
    loops = [i for body in module.computations.values() for i in body if i.opcode == "while"]
    return sum(hlo.trip_count(module, i) is None and bool(_tally(module, hlo.named(i, "body"), memo)) for i in loops)


def _parsed(text):
    """The module, with a collective that runs beside other work only where it starts.

    A TPU writes it again, under the same channel, in every fusion that it is carried through and where it ends.
    """
    module = hlo.parse(text)
    starts = [body for body in module.computations.values() if _starts(body)]
    started = {channel for body in starts for i in body if i.opcode in KINDS and (channel := _channel(i))}
    once = {
        name: body if _starts(body) else [i for i in body if i.opcode not in KINDS or _channel(i) not in started]
        for name, body in module.computations.items()
    }
    return module._replace(computations=once)


def _starts(body):
    return any('custom_call_target="AsyncCollectiveStart"' in i.rest for i in body)


def _channel(instruction):
    match = re.search(r"\bchannel_id=(\d+)", instruction.rest)
    return match[1] if match else None


def _nbytes(shape):
    sizes = re.findall(r"\b([a-z]\w*)\[([\d,<= ]*)\]", shape)
    return sum((hlo.bits(dtype) * math.prod(map(int, re.findall(r"\d+", dims))) + 7) // 8 for dtype, dims in sizes)


def _tally(module, name, memo):
    """(kind, nbytes, group) -> executions in one run of a computation."""
    if name not in memo:
        memo[name] = Counter()
        for instruction in module.computations.get(name, []):
            memo[name] += _counted(module, name, instruction, memo)
    return memo[name]


def _counted(module, name, instruction, memo):
    opcode = instruction.opcode
    if opcode.endswith(("-done", "-update")):
        return Counter()
    if opcode == "while":
        trips = hlo.trip_count(module, instruction)
        body, condition = (_tally(module, hlo.named(instruction, part), memo) for part in ("body", "condition"))
        return _times(body, 1 if trips is None else trips) + _times(condition, 1 if trips is None else trips + 1)
    if opcode == "conditional":
        tallies = [_tally(module, branch, memo) for branch in hlo.names(hlo.BRANCHES, instruction)]
        return max(tallies, key=_cost, default=Counter())
    called = [c for c in hlo.names(hlo.CALLED, instruction) if c in module.computations]
    kind = KINDS.get(opcode.removesuffix("-start"))
    if kind and not any(_tally(module, c, memo) for c in called):
        return Counter([_key(module, name, kind, instruction)])
    return sum((_tally(module, c, memo) for c in called), Counter())


def _times(tally, count):
    return Counter({key: count * number for key, number in tally.items()})


def _cost(tally):
    return sum(count * wire_bytes(Collective(*key, count)) for key, count in tally.items())


def _key(module, computation, kind, instruction):
    """A TPU's reduce-scatter is a fusion of this name around an all-reduce, of which each device keeps its part."""
    group, shape = _group(module, kind, instruction.rest), instruction.shape
    if instruction.opcode.endswith("-start") and shape.startswith("("):
        members = hlo.members(shape)  # (operand, result, ...), but for an all-reduce only the results
        shape = members[1] if len(members) > 1 and (kind != "all-reduce" or members[0].startswith("(")) else shape
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        return "reduce-scatter", _nbytes(shape), group
    return kind, _nbytes(shape) * (group if kind == "reduce-scatter" else 1), group


def _group(module, kind, text):
    """Devices in a group: {{0,1},{2,3}}, [2,2]<=[4], mesh['x'=2,'y'=2] {'x'}; {} is all of them in one."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{([\d,{} ]*)\}", text)
        if pairs:
            return len(set(re.findall(r"\d+", pairs[1]))) or 1
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=", text):
        return int(match[1].split(",")[-1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        return _mesh_group(*match.groups())
    groups = re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", text)
    sizes = [len(re.findall(r"\d+", group)) for group in re.findall(r"\{([\d, ]*)\}", groups[1])] if groups else []
    return max(sizes, default=0) or module.devices


def _mesh_group(mesh, axes):
    """'x':(2)4 is a part of the axis x, of 4 devices."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes)
    return math.prod(int(part) if part else sizes[name] for name, part in parts)
