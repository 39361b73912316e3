# SPDX-License-Identifier: Apache-2.0
"""Finds a data set in a user's folder, however it was unpacked or renamed.

A `Layout` says what a data set is called, which archives it comes in, and what its tree looks like. `find_tree` returns
the union of all folders that look like it, because people unpack the parts of a data set into one folder, into a folder
each, or not at all.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from nightjax.core.errors import Absent, UserError
from nightjax.data import walking
from nightjax.prepare import archives

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a data set comes from and how its files are recognized.

    Attributes:
        title: name of the data set, for messages.
        page: download page.
        folders: names that people give its folder; case, blanks, ``-`` and ``_`` do not matter.
        markers: glob patterns relative to a root; a folder in which one of them matches is a root.
        archives: name of an archive to the pattern of the files in it; the archive is unpacked only if no root has a
            match already.
    """

    title: str
    page: str
    folders: tuple[str, ...]
    markers: tuple[str, ...]
    archives: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def instructions(self) -> str:
        """What to download and where to put it, in one line."""
        looked = [f"folder {folder}/" for folder in self.folders[:3]]
        looked += [f"a tree with {marker}" for marker in self.markers]
        looked += [f"archive {name}" for name in self.archives]
        return f"looked for {', '.join(looked)}; download: {self.page}"


@dataclasses.dataclass(frozen=True)
class Tree:
    """The union of several folders; a file in an earlier root hides the same file in a later one."""

    roots: tuple[pathlib.Path, ...]

    def glob(self, *patterns: str) -> dict[str, pathlib.Path]:
        """Files that match a pattern, see `walking.match`: relative path to full path, sorted by relative path."""
        found: dict[str, pathlib.Path] = {}
        for root in self.roots:
            for pattern in patterns:
                for name, path in walking.match(root, pattern):
                    found.setdefault(name, path)
        return dict(sorted(found.items()))


def find_tree(layout: Layout, manual_dir: pathlib.Path, extract_dir: pathlib.Path) -> Tree:
    """Finds a data set below ``manual_dir`` and unpacks its archives if necessary.

    Args:
        layout: what to look for.
        manual_dir: the folder that the user names: the root of the data set, or a folder that holds the root or the
            archives.
        extract_dir: where archives are unpacked; nothing is written elsewhere.

    Raises:
        Absent: there is nothing usable; the message says what was looked for, what was found, and where to download
            it.
        UserError: the folder is none.
    """
    manual_dir = pathlib.Path(manual_dir)
    if not manual_dir.is_dir():
        raise UserError(f"{layout.title}: {manual_dir} is not a folder; {layout.instructions}")
    names = {_plain(name) for name in layout.folders} | {
        _plain(archives.stem(pathlib.PurePath(name))) for name in layout.archives
    }
    folders = _named_folders([manual_dir], names)
    roots = [folder for folder in folders if _has(folder, layout.markers)]
    known = {name.lower(): pattern for name, pattern in layout.archives.items()}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            pattern = known.get(path.name.lower())
            if pattern is None or not path.is_file() or any(_has(root, (pattern,)) for root in roots):
                continue
            unpacked = _named_folders([archives.extract(path, extract_dir)], names)
            roots += [folder for folder in unpacked if _has(folder, layout.markers)]
    if not roots:
        present = sorted(path.name for path in manual_dir.iterdir())
        shown = ", ".join(present[:8]) + (", ..." if len(present) > 8 else "") if present else "nothing"
        raise Absent(f"{layout.title}: no usable data in {manual_dir} (it holds {shown}); {layout.instructions}")
    return Tree(tuple(roots))


def by_stem(files: Mapping[str, pathlib.Path], suffix: str = "") -> dict[str, pathlib.Path]:
    """File name, without its extension and without ``suffix``, to path."""
    return {path.stem.removesuffix(suffix): path for path in files.values()}


def match(images: Mapping[str, T], partners: Mapping[str, T], role: str) -> tuple[list[str], list[str]]:
    """The ids that are in both, sorted, and one text for each that is in only one."""
    both = sorted(images.keys() & partners.keys())
    lonely = [f"{name} has no {role}" for name in sorted(images.keys() - partners.keys())]
    return both, lonely + [f"{name} has no image" for name in sorted(partners.keys() - images.keys())]


def parse_frame(stem: str) -> tuple[str, int]:
    """``("GP010376", 12)`` for ``GP010376_frame_000012...``; ``("", -1)`` for names of another form."""
    found = re.match(r"(.+?)_frame_(\d+)", stem)
    return (found[1], int(found[2])) if found else ("", -1)


def _named_folders(start: Sequence[pathlib.Path], names: set[str], depth: int = 2) -> list[pathlib.Path]:
    """``start`` and the folders below it, down to ``depth``, that have one of the names."""
    found, level = list(start), list(start)
    for _ in range(depth):
        level = [
            child
            for folder in level
            for child in sorted(folder.iterdir())
            if _plain(child.name) in names and child.is_dir()
        ]
        found += level
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]", "", name.lower())


def _has(folder: pathlib.Path, patterns: Sequence[str]) -> bool:
    return any(next(walking.match(folder, pattern, ("file", "folder")), None) is not None for pattern in patterns)
