"""Names of the parameters of equal blocks, which are kept as one array with a leading axis.

A network of forty equal blocks has forty times as many arrays as one block. Kept apart, each is a small program of its
own in the optimizer and in the teacher's average, and most of the time to compile goes there.
"""

from collections.abc import Sequence

Path = tuple[str, ...]

_BLOCKS = {"each": (0, 1), "even": (0, 2), "odd": (1, 2)}
"""Last word of a name to the number of the first block and the distance of the next."""


def is_stacked(path: Sequence[str]) -> bool:
    """Whether a parameter of this path has a leading axis of blocks."""
    return any(map(_is_word, path))


def block_paths(path: Sequence[str], count: int) -> list[Path]:
    """The path of each of ``count`` blocks: of ``("blocks_odd", "kernel")``, ``("blocks_1", "kernel")``, ``("blocks_3",
    ...)``."""
    i = next(i for i, part in enumerate(path) if _is_word(part))
    name, _, word = path[i].rpartition("_")
    first, step = _BLOCKS[word]
    return [(*path[:i], f"{name}_{first + step * k}", *path[i + 1 :]) for k in range(count)]


def _is_word(part: str) -> bool:
    return part.rpartition("_")[2] in _BLOCKS
