"""Reads an optimised HLO module: products, collectives and kept buffers, loops counted in full.

XLA's own cost analysis counts the body of a loop once, however often it runs; here every
computation counts as often as it is called.

    while body of 24 layers, one all-gather of f32[4, 8] in it  ->  24 collectives, 24 * 128 bytes

Source of the text format and of the operations' names: XLA, "Operation semantics".
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8, "c64": 64, "c128": 128}
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_NAME = r"%?([\w.\-$]+)"
_HEAD = re.compile(rf"^(ENTRY )?{_NAME} \(.*\) -> .* {{$")
_LINE = re.compile(rf"^\s+(?:ROOT )?{_NAME} = (.*)$")
_CALLED = re.compile(
    rf"(?:calls|to_apply|condition|body|true_computation|false_computation)={_NAME}"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: such as "all-gather".
        bytes: of its result on one device (of a reduce-scatter: of what goes in).
        times: how often a run of the program executes it.
        group: devices that take part together.
    """

    kind: str
    bytes: int
    times: int
    group: int


@dataclasses.dataclass(frozen=True)
class Program:
    """What is counted of a program on one device.

    Attributes:
        dot_flops: of all matrix products and convolutions, multiplications and additions apart.
        collectives: in the order of the text.
        unknown_loops: loops whose number of rounds the text does not give; counted once.
    """

    dot_flops: float
    collectives: tuple[Collective, ...]
    unknown_loops: int

    def traffic(self) -> dict[str, dict[str, int]]:
        """Kind -> executions and bytes of a step, on one device."""
        found: dict[str, dict[str, int]] = {}
        for one in self.collectives:
            entry = found.setdefault(one.kind, {"count": 0, "bytes": 0})
            entry["count"] += one.times
            entry["bytes"] += one.times * one.bytes
        return found


def read_program(text: str) -> Program:
    """Counts an optimised module, as `compiled.as_text()` gives it."""
    computations, entry = _computations(text)
    times, unknown = _times(computations, entry)
    flops, collectives = 0.0, []
    for name, lines in computations.items():
        if not times[name]:
            continue
        shapes = {line.name: line.shape for line in lines}
        for line in lines:
            flops += times[name] * _flops(line, shapes)
            kind = line.op.removesuffix("-start")
            if kind in COLLECTIVES:
                collectives.append(_collective(line, kind, times[name]))
    return Program(flops, tuple(collectives), unknown)


def shape_bytes(shape: str) -> int:
    """Bytes of a shape such as `f32[4,8]{1,0}`; of a tuple, of all its members."""
    return sum(
        math.prod(map(int, dims.split(","))) * _bits(dtype) // 8 if dims else _bits(dtype) // 8
        for dtype, dims in _SHAPE.findall(shape)
    )


# ------------------------------------------------------------------------------- internals


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    rest: str


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.sub(r"\D", "", dtype)
    return int(digits) if digits else 0  # tokens and opaque values hold nothing


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    computations: dict[str, list[_Line]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _LINE.match(line)):
            current.append(_parse(found[1], found[2]))
    return computations, entry


def _parse(name: str, rest: str) -> _Line:
    """Splits `f32[2]{0} add(%a, %b), attribute=...`; the shape of a tuple is in brackets."""
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
    else:
        end = rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    op, _, rest = rest.partition("(")
    close = _closing("(" + rest, 0) - 1
    operands = tuple(re.findall(r"%([\w.\-$]+)", rest[:close]))
    return _Line(name, shape, op, operands, rest[close + 1 :])


def _closing(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if not depth:
            return index
    return len(text)


def _calls(line: _Line) -> Iterator[tuple[str, int | None]]:
    """Computations that a line runs, and how often; None where a loop does not say."""
    names = _CALLED.findall(line.rest)
    for group in _BRANCHES.findall(line.rest):
        names += re.findall(r"[\w.\-$]+", group)
    trips = _TRIPS.search(line.rest)
    number = 1 if line.op != "while" else int(trips[1]) if trips else None
    yield from ((name, number) for name in names)


def _times(computations: Mapping[str, list[_Line]], entry: str) -> tuple[dict[str, int], int]:
    """How often each computation runs; the callers of one come before it in no fixed order."""
    callers: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    unknown = 0
    for name, lines in computations.items():
        for line in lines:
            calls = list(_calls(line))
            unknown += line.op == "while" and any(number is None for _, number in calls)
            for called, number in calls:
                callers[called].append((name, 1 if number is None else number))
    known: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in known:
            known[name] = (name == entry) + sum(n * count(c) for c, n in callers[name])
        return known[name]

    return {name: count(name) for name in computations}, unknown


def _dims(shape: str) -> list[int]:
    found = _SHAPE.search(shape)
    return [int(n) for n in found[2].split(",")] if found and found[2] else []


def _flops(line: _Line, shapes: Mapping[str, str]) -> float:
    if line.op == "dot":
        left = _dims(shapes[line.operands[0]])
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        dims = [int(n) for n in contracted[1].split(",")] if contracted and contracted[1] else []
        return 2.0 * math.prod(_dims(line.shape)) * math.prod(left[d] for d in dims)
    if line.op == "convolution":
        labels = re.search(r"dim_labels=\w+_(\w+)->", line.rest)
        kernel = _dims(shapes[line.operands[1]])
        if labels is None:
            return 0.0
        features = math.prod(n for n, label in zip(kernel, labels[1], strict=True) if label != "o")
        return 2.0 * math.prod(_dims(line.shape)) * features
    if line.op == "custom-call" and "matmul" in line.rest:
        left, out = _dims(shapes[line.operands[0]]), _dims(line.shape)
        return 2.0 * math.prod(out) * (left[-1] if left else 0)
    return 0.0


def _collective(line: _Line, kind: str, times: int) -> Collective:
    group, size = _group(line.rest), shape_bytes(line.shape)
    if line.op.endswith("-start"):  # its result names what went in, too
        members = [shape_bytes(f"{t}[{d}]") for t, d in _SHAPE.findall(line.shape)]
        size = max(members)
    if kind == "reduce-scatter":
        size *= group
    return Collective(kind, size, times, group)


def _group(rest: str) -> int:
    """Devices of one replica group, in any of the three notations."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    if iota:
        return int(iota[1])
    # mesh['a'=2,'b'=4] {'a','b':(1)2}: whole axes, and 2 of an axis that is split.
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest)
    if mesh is None:
        return 1
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
    return math.prod(int(part) if part else sizes[name] for name, part in axes)
