"""The text of an optimized HLO module, `compiled.as_text()`, taken apart: computations, instructions, loops."""

import math
import re
from typing import NamedTuple

NAME = r"%?([\w.\-]+)"
HEADER = re.compile(rf"(ENTRY )?{NAME}(?: .*)? \{{$")
INSTRUCTION = re.compile(rf"(ROOT )?{NAME} = (.*)$")
CALLED = re.compile(rf"\b(?:calls|to_apply)={NAME}|called_computations=\{{([^}}]*)\}}")
BRANCHES = re.compile(rf"branch_computations=\{{([^}}]*)\}}|(?:true|false)_computation={NAME}")
OPEN, CLOSED = "([{", ")]}"


class Instruction(NamedTuple):
    """A line of HLO: NAME = SHAPE OPCODE(OPERANDS), ATTRIBUTES."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # from the operands on
    is_root: bool  # of its computation, whose result it is


class Module(NamedTuple):
    """What an HLO text says."""

    computations: dict[str, list[Instruction]]
    entry: str
    devices: int


def parse(text: str) -> Module:
    """Computations by name, with what the header of the module says about devices; in the form of any backend."""
    computations, entry, body = {}, "", []
    for line in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line).strip()
        if match := INSTRUCTION.match(line):
            body.append(_instruction(match[2], match[3], bool(match[1])))
        elif match := HEADER.match(line):
            body = computations[match[2]] = []
            entry = match[2] if match[1] else entry
    header = re.search(r"^HloModule.*", text, re.MULTILINE)
    sizes = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", header[0] if header else "")
    return Module(computations, entry or next(reversed(computations), ""), math.prod(map(int, sizes)))


def _instruction(name, text, is_root):
    shape = text[: _end(text, " ")]
    rest = text[len(shape) + 1 :]
    opcode = rest.partition("(")[0]
    inside = rest[len(opcode) + 1 :]
    operands = re.findall(r"%([\w.\-]+)", inside[: _end(inside, ")")])
    return Instruction(name, shape, opcode.strip(), tuple(operands), rest, is_root)


def _end(text, letter):
    """Where a letter stands outside every bracket; else the end."""
    depth = 0
    for i, found in enumerate(text):
        if depth == 0 and found == letter:
            return i
        depth += (found in OPEN) - (found in CLOSED)
    return len(text)


def members(shape: str) -> list[str]:
    """The members of a tuple's shape, at the top level."""
    text, found = shape[1:-1], []
    while text:
        found.append(text[: _end(text, ",")])
        text = text[len(found[-1]) + 1 :]
    return [member.strip() for member in found]


def bits(dtype: str) -> int:
    """Of one number of a type as HLO names it: 32 of f32, 8 of f8e4m3fn and pred, 0 of a token."""
    match = re.match(r"[a-z]+(\d+)", dtype)
    return int(match[1]) if match else 8 * (dtype == "pred")


def names(pattern: re.Pattern, instruction: Instruction) -> list[str]:
    """The computations that CALLED or BRANCHES finds in an instruction."""
    groups = [part for match in pattern.findall(instruction.rest) for part in match if part]
    return [name for group in groups for name in re.findall(NAME, group)]


def named(instruction: Instruction, attribute: str) -> str:
    """The value of ATTRIBUTE=NAME, or ''."""
    match = re.search(rf"\b{attribute}={NAME}", instruction.rest)
    return match[1] if match else ""


def trip_count(module: Module, loop: Instruction) -> int | None:
    """How often a loop's body runs: what its text says, or else the one constant that its condition compares with.

    Returns:
      None where neither is there, as of a loop whose number of turns is an argument of the program.
    """
    if match := re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop.rest):
        return int(match[1])
    condition = list(module.computations.get(named(loop, "condition"), []))
    for instruction in list(condition):
        condition += [i for name in names(CALLED, instruction) for i in module.computations.get(name, [])]
    constants = [re.match(r"constant\((\d+)\)", i.rest) for i in condition if i.opcode == "constant"]
    directions = [named(i, "direction") for i in condition if i.opcode == "compare"]
    if len(constants) != 1 or not constants[0] or directions not in (["LT"], ["LE"]):
        return None
    return int(constants[0][1]) + (directions == ["LE"])


def steps(module: Module) -> list[Instruction]:
    """Loops of the entry whose number of turns is an argument: that of `step.make_call` over the steps of a call."""
    body = module.computations.get(module.entry, [])
    return [i for i in body if i.opcode == "while" and trip_count(module, i) is None]
