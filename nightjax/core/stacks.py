# SPDX-License-Identifier: Apache-2.0
"""Stacks: equal blocks of a network whose parameters are kept as one tree of arrays with a leading axis of blocks.

A network of forty equal blocks has forty times as many arrays as one block. Kept apart, each is a small program of its
own in the optimizer and in the teacher's average, and most of the time to compile goes there.

A module declares its stacks in an attribute ``stacks``, a tuple of `Stack`. The optimizer and the torch names read
them there; the name of a parameter says nothing about a stack.
"""

import dataclasses
from collections.abc import Iterable, Sequence

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Stack:
    """Equal blocks whose arrays are stacked along a leading axis.

    Attributes:
        path: where the stacked parameters are in the module that declares them, such as ``"blocks"``.
        block: path of a single block without its number, where it is another; torch checkpoints hold the blocks one by
            one, under such paths.
        first: number of the first block.
        step: distance from the number of a block to that of the next.
    """

    path: str
    block: str = ""
    first: int = 0
    step: int = 1

    def inside(self, name: str) -> "Stack":
        """The same stack seen from a module that holds the declaring one as ``name``."""
        block = f"{name}/{self.block}" if self.block else ""
        return dataclasses.replace(self, path=f"{name}/{self.path}", block=block)

    def holds(self, path: Sequence[str]) -> bool:
        """Whether the parameter of this path belongs to the stack."""
        own = tuple(self.path.split("/"))
        return tuple(path[: len(own)]) == own

    def block_paths(self, path: Sequence[str], count: int) -> list[Path]:
        """The path of each of ``count`` blocks for the path of a stacked parameter.

        For ``Stack("blocks")`` and ``("blocks", "kernel")``: ``("blocks_0", "kernel")``, ``("blocks_1", "kernel")``,
        and so on.
        """
        rest = path[self.path.count("/") + 1 :]
        *outer, name = (self.block or self.path).split("/")
        return [(*outer, f"{name}_{self.first + self.step * i}", *rest) for i in range(count)]


def stacks_of(module: object, name: str = "") -> tuple[Stack, ...]:
    """The stacks that a module declares; none for a module without the attribute ``stacks``.

    Args:
        module: a network or a part of one.
        name: of the module in the one that asks; the paths start with it.
    """
    own: tuple[Stack, ...] = getattr(module, "stacks", ())
    return tuple(stack.inside(name) for stack in own) if name else own


def find_stack(stacks: Iterable[Stack], path: Sequence[str]) -> Stack | None:
    """The stack that a parameter belongs to, or None."""
    return next((stack for stack in stacks if stack.holds(path)), None)
