"""The collectives of a compiled program, read off the text of its optimized HLO: `compiled.as_text()`. Needs no JAX."""

import math
import re
from collections import Counter
from typing import NamedTuple

KINDS = {
    "all-reduce": "all-reduce",
    "all-gather": "all-gather",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "ragged-all-to-all": "all-to-all",
    "collective-permute": "collective-permute",
    "collective-broadcast": "collective-permute",  # a device passes the payload on once
}
NAME = r"%?([\w.\-]+)"
HEADER = re.compile(rf"(ENTRY )?{NAME}(?: .*)? \{{$")
INSTRUCTION = re.compile(rf"(?:ROOT )?{NAME} = (.*)$")
CALLED = re.compile(rf"(?:calls|to_apply)={NAME}|called_computations=\{{([^}}]*)\}}")
BRANCHES = re.compile(rf"branch_computations=\{{([^}}]*)\}}|(?:true|false)_computation={NAME}")


class Collective(NamedTuple):
    """Equal operations of a program that one device takes part in."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute
    nbytes: int  # payload of one execution on one device: the whole, gathered or not yet scattered, array
    group: int  # devices that exchange it
    count: int  # executions in one call of the program


class Instruction(NamedTuple):
    """A line of HLO: NAME = SHAPE OPCODE(OPERANDS), ATTRIBUTES."""

    shape: str
    opcode: str
    rest: str  # from the operands on


class Module(NamedTuple):
    """What an HLO text says."""

    computations: dict[str, list[Instruction]]
    entry: str
    devices: int


def collectives(hlo: str) -> list[Collective]:
    """Every collective that one call of a program executes, the dearest first.

    A loop's body counts as often as its trip count says, or else the one constant that its condition compares with;
    where neither is there it counts once (`open_loops` tells how many these are). Of a conditional the dearest branch
    counts. Operations that XLA added to a program of one device have a group of 1.

    Args:
      hlo: the optimized module, in the form of any backend.
    """
    module = parse(hlo)
    found = [Collective(*key, count) for key, count in _tally(module, module.entry, {}).items()]
    return sorted(found, key=lambda c: (-c.count * wire_bytes(c), c))


def wire_bytes(collective: Collective) -> float:
    """Bytes that one device sends in one execution, by the algorithm on a ring."""
    n = collective.group
    if collective.kind == "collective-permute":
        return float(collective.nbytes)
    return (2 if collective.kind == "all-reduce" else 1) * (n - 1) / n * collective.nbytes


def sent_bytes(hlo: str, steps_per_call: int = 1) -> float:
    """Bytes that one device sends in one train step.

    The loop over the steps of a call, whose number is an argument, counts once; what is around it is shared by them.
    """
    module, memo = parse(hlo), {}
    steps = [i for i in module.computations[module.entry] if i.opcode == "while" and _trips(module, i) is None]
    inside = sum(_cost(_tally(module, _named(loop, "body"), memo)) for loop in steps)
    return inside + (_cost(_tally(module, module.entry, memo)) - inside) / (steps_per_call if steps else 1)


def open_loops(hlo: str) -> int:
    """How many loops with collectives run so often as the program's arguments say: `collectives` counts them once."""
    module, memo = parse(hlo), {}
    loops = [i for body in module.computations.values() for i in body if i.opcode == "while"]
    return sum(_trips(module, i) is None and bool(_tally(module, _named(i, "body"), memo)) for i in loops)


def parse(hlo: str) -> Module:
    """Computations by name, with what the header of the module says about devices."""
    computations, entry, body = {}, "", []
    for line in hlo.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line).strip()
        if match := INSTRUCTION.match(line):
            shape, rest = _split_shape(match[2])
            body.append(Instruction(shape, rest.partition("(")[0].strip(), rest))
        elif match := HEADER.match(line):
            body = computations[match[2]] = []
            entry = match[2] if match[1] else entry
    header = re.search(r"^HloModule.*", hlo, re.MULTILINE)
    sizes = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", header[0] if header else "")
    return Module(computations, entry or next(reversed(computations), ""), math.prod(map(int, sizes)))


def _split_shape(text):
    """'(f32[2]{0}, u32[]) op(...)' as ('(f32[2]{0}, u32[])', 'op(...)')."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == " " and depth == 0:
            return text[:i], text[i + 1 :]
    return text, ""


def _elements(shape):
    """The members of a tuple's shape, at the top level."""
    members, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            members.append("")
        else:
            members[-1] += letter
    return [member.strip() for member in members]


def _nbytes(shape):
    sizes = re.findall(r"\b([a-z]\w*)\[([\d,<= ]*)\]", shape)
    return sum((_bits(dtype) * math.prod(map(int, re.findall(r"\d+", dims))) + 7) // 8 for dtype, dims in sizes)


def _bits(dtype):
    match = re.match(r"[a-z]+(\d+)", dtype)
    return int(match[1]) if match else 8 * (dtype == "pred")  # a token has none


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
        trips = _trips(module, instruction)
        body, condition = (_tally(module, _named(instruction, part), memo) for part in ("body", "condition"))
        return _times(body, 1 if trips is None else trips) + _times(condition, 1 if trips is None else trips + 1)
    if opcode == "conditional":
        tallies = [_tally(module, branch, memo) for branch in _names(BRANCHES, instruction)]
        return max(tallies, key=_cost, default=Counter())
    called = [c for c in _names(CALLED, instruction) if c in module.computations]
    kind = KINDS.get(opcode.removesuffix("-start"))
    if kind and not any(_tally(module, c, memo) for c in called):
        return Counter([_key(module, name, kind, instruction)])
    return sum((_tally(module, c, memo) for c in called), Counter())


def _times(tally, count):
    return Counter({key: count * number for key, number in tally.items()})


def _cost(tally):
    return sum(count * wire_bytes(Collective(*key, count)) for key, count in tally.items())


def _names(pattern, instruction):
    groups = [part for match in pattern.findall(instruction.rest) for part in match if part]
    return [name for group in groups for name in re.findall(NAME, group)]


def _named(instruction, attribute):
    match = re.search(rf"\b{attribute}={NAME}", instruction.rest)
    return match[1] if match else ""


def _key(module, computation, kind, instruction):
    """A TPU's reduce-scatter is a fusion of this name around an all-reduce, of which each device keeps its part."""
    group, shape = _group(module, kind, instruction.rest), instruction.shape
    if instruction.opcode.endswith("-start") and shape.startswith("("):
        members = _elements(shape)  # (operand, result, ...), but for an all-reduce only the results
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


def _trips(module, loop):
    """How often a loop's body runs; None where its text does not say."""
    if match := re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop.rest):
        return int(match[1])
    condition = list(module.computations.get(_named(loop, "condition"), []))
    for instruction in list(condition):
        condition += [i for name in _names(CALLED, instruction) for i in module.computations.get(name, [])]
    constants = [re.match(r"constant\((\d+)\)", i.rest) for i in condition if i.opcode == "constant"]
    directions = [_named(i, "direction") for i in condition if i.opcode == "compare"]
    if len(constants) != 1 or not constants[0] or directions not in (["LT"], ["LE"]):
        return None
    return int(constants[0][1]) + (directions == ["LE"])
