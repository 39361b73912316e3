# SPDX-License-Identifier: Apache-2.0
"""Reads a compiled program's text: the bytes that its operations move, and its collectives, in loops too.

XLA's own count of bytes takes the body of a loop once, and is missing for programs compiled for a GPU ahead of time.
This one multiplies by the length that the compiler found for a loop, and reads an array that is only sliced as its
slice.
"""

import dataclasses
import functools
import math
import re
from collections import Counter

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
"""Operations that move nothing."""

SLICES = {"dynamic-slice", "slice", "gather"}
"""Operations that read as much of their first operand as they give back."""

CALLS = {"while": ("body", "condition"), "call": ("to_apply",), "conditional": ("branch_computations",)}
"""Operations that run other computations, and the attributes that name these."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation.

    Attributes:
        name: of its result.
        kind: such as ``"fusion"``.
        size: bytes of the result.
        operands: names.
        attributes: the rest of the line.
        root: whether it is the computation's result.
    """

    name: str
    kind: str
    size: int
    operands: tuple[str, ...]
    attributes: str
    root: bool


class Program:
    """A compiled program, by its text (``compiled.as_text()``)."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Operation]] = {}
        self.entry = ""
        own: dict[str, Operation] = {}
        for line in text.splitlines():
            if header := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
                own = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif operation := _operation(line):
                own[operation.name] = operation

    def moved(self) -> int:
        """Bytes read and written by all operations of one run; of a conditional the costlier branch counts."""
        return self._moved(self.entry)

    def collectives(self) -> dict[str, tuple[int, int]]:
        """Kind of every collective to how many one run does and the bytes of their results."""
        numbers, sizes = self._collectives(self.entry)
        return {kind: (numbers[kind], sizes[kind]) for kind in COLLECTIVES if numbers[kind]}

    @functools.cache  # noqa: B019 A program lives as long as its plan is made.
    def _moved(self, name: str) -> int:
        total = 0
        for operation in self.computations[name].values():
            inner = [self._moved(called) for called in self._called(operation)]
            if operation.kind == "conditional":
                total += max(inner)
            elif inner:
                total += _turns(operation) * sum(inner)
            elif operation.kind not in FREE and not operation.kind.endswith("-done"):
                total += self._own_bytes(self.computations[name], operation)
        return total

    @functools.cache  # noqa: B019
    def _collectives(self, name: str) -> tuple[Counter[str], Counter[str]]:
        numbers: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for operation in self.computations[name].values():
            kind = operation.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                numbers[kind] += 1
                sizes[kind] += operation.size
            for called in self._called(operation):
                for ours, theirs in zip((numbers, sizes), self._collectives(called), strict=True):
                    ours.update({kind: _turns(operation) * number for kind, number in theirs.items()})
        return numbers, sizes

    def _called(self, operation: Operation) -> list[str]:
        names = []
        for attribute in CALLS.get(operation.kind, ()):
            found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.-]+)", operation.attributes)
            names += re.findall(r"[\w.-]+", found[1]) if found else []
        if operation.kind == "conditional" and not names:
            names = re.findall(r"\b(?:true|false)_computation=%?([\w.-]+)", operation.attributes)
        return [name for name in names if name in self.computations]

    def _own_bytes(self, computation: dict[str, Operation], operation: Operation) -> int:
        sizes = [computation[name].size if name in computation else 0 for name in operation.operands]
        if operation.kind in SLICES:
            return 2 * operation.size
        if operation.kind == "dynamic-update-slice":
            return 2 * sizes[1]
        fused = re.search(r"\bcalls=%?([\w.-]+)", operation.attributes) if operation.kind == "fusion" else None
        if fused and fused[1] in self.computations:
            return self._fusion_bytes(self.computations[fused[1]], operation.size)
        return operation.size + sum(sizes)

    def _fusion_bytes(self, inside: dict[str, Operation], size: int) -> int:
        """What a fusion reads of its operands, and what it writes."""
        users: dict[str, list[Operation]] = {}
        for operation in inside.values():
            for name in operation.operands:
                users.setdefault(name, []).append(operation)
        total = 0
        for operation in inside.values():
            if operation.kind == "parameter":
                readers = users.get(operation.name, [])
                sliced = readers and all(
                    reader.operands[0] == operation.name and reader.kind in (*SLICES, "dynamic-update-slice")
                    for reader in readers
                )
                # What a dynamic update leaves alone is not read.
                parts = sum(reader.size for reader in readers if reader.kind in SLICES)
                total += min(parts, operation.size) if sliced else operation.size
        root = next(operation for operation in inside.values() if operation.root)
        while root.kind in ("bitcast", "convert", "copy") and root.operands[0] in inside:
            root = inside[root.operands[0]]
        if root.kind == "dynamic-update-slice" and root.operands[1] in inside:
            return total + inside[root.operands[1]].size
        return total + size


def _operation(line: str) -> Operation | None:
    found = re.match(r"\s+(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)$", line)
    if not found:
        return None
    rest = found[5]
    depth, end = 1, len(rest)
    for i, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            end = i
            break
    operands = tuple(re.findall(r"%([\w.-]+)", rest[:end]))
    return Operation(found[2], found[4], _size(found[3]), operands, rest[end:], bool(found[1]))


def _size(shape: str) -> int:
    """Bytes of ``f32[2,3]{1,0}`` or of a tuple of such."""
    return sum(
        _element_bytes(kind) * math.prod(int(n) for n in lengths.split(",") if n)
        for kind, lengths in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", shape)
    )


def _element_bytes(kind: str) -> int:
    bits = re.search(r"\d+", kind)  # "pred" has none.
    return max(int(bits[0]) // 8, 1) if bits else 1


def _turns(operation: Operation) -> int:
    """How often a loop's body runs, 1 where the compiler does not know."""
    found = re.search(r'known_trip_count[^}]*?"n":"(\d+)"', operation.attributes)
    return int(found[1]) if found else 1
