# SPDX-License-Identifier: Apache-2.0
"""The one way through a folder: every list of files that a user gave comes from here.

Passed over are what systems and editors leave behind, files of other types, and what is no file: pipes, sockets,
devices and links that lead nowhere. None of these is ever opened, and all can be named. Names are compared and returned
in Unicode's form NFC, because a Mac stores "ü" in another form than Linux, and suffixes count in any case.
"""

import dataclasses
import fnmatch
import os
import pathlib
import unicodedata
from collections.abc import Collection, Iterator, Sequence

from nightjax.core.errors import UserError
from nightjax.core.files import SPECIAL as SPECIAL

IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".heic",
    ".heif",
)
"""What is taken for an image, in any case. HEIC needs the package pillow-heif."""

MAX_LINKS = 2
"""So many links to folders may follow one another in a path."""

LITTER = "left by a system or an editor"
LOOP = "a link to a folder that is read already"
NOWHERE = "a link to nothing"

_LITTER_NAMES = {
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "picasa.ini",
    "icon\r",
    "__macosx",
    "__pycache__",
    "$recycle.bin",
    "#recycle",
    "#snapshot",
    "system volume information",
    "lost+found",
    "network trash folder",
    "temporary items",
}
_LITTER_STARTS = (".", "@eadir", "~$", "syno@")
_LITTER_ENDS = ("~", ".tmp", ".part", ".crdownload", ".swp", ".bak")


@dataclasses.dataclass(frozen=True)
class Listing:
    """What is below a folder.

    Attributes:
        files: name, relative to the folder, with ``/`` and in NFC, to path; ordered by the parts of the name.
        passed: name of everything that was passed over, to the reason.
    """

    files: dict[str, pathlib.Path]
    passed: dict[str, str]

    def summary(self, shown: int = 5) -> str:
        """What was passed over in one line, ``"3 passed over: a.mp4 (.mp4), ..."``; "" if nothing or only litter."""
        names = [f"{name} ({why})" for name, why in self.passed.items() if why != LITTER]
        more = f", and {len(names) - shown} more" if len(names) > shown else ""
        return f"{len(names)} passed over: {', '.join(names[:shown])}{more}" if names else ""


def walk(folder: str | os.PathLike, suffixes: Collection[str] = IMAGE_SUFFIXES, *, repeated: bool = False) -> Listing:
    """Lists the files below a folder.

    Links are followed, and each folder is read once, under its own name before that of a link, so loops end.

    Args:
        folder: on a local disk; empty if it is missing. Its own name does not matter.
        suffixes: of the files to list, in lower case; all files if empty.
        repeated: lists a folder under the name of every link to it as well, unless the link is inside that folder. For
            looking up the partners of images.

    Raises:
        UserError: two names are equal in NFC; or the folder is the root of the file system, where everything lies.
    """
    root = pathlib.Path(folder)
    if root.resolve() == pathlib.Path(root.resolve().anchor):
        raise UserError(f"{folder} is the root of the file system: name the folder with the images")
    files: dict[str, pathlib.Path] = {}
    passed: dict[str, str] = {}
    if not root.is_dir():
        return Listing(files, passed)
    seen = {_identity(root), *map(_identity, root.resolve().parents)}  # A link to those leads back here.
    todo: list[tuple[str, pathlib.Path, frozenset, int]] = [("", root, frozenset(seen), 0)]
    linked: list[tuple[str, pathlib.Path, frozenset, int]] = []
    while todo or linked:
        prefix, current, chain, links = todo.pop() if todo else linked.pop(0)
        if links:
            here = _identity(current)
            if here in (chain if repeated else seen) or links > MAX_LINKS:
                passed[prefix.rstrip("/")] = LOOP
                continue
            seen.add(here)
            chain |= {here}
        for name, kind, is_link, why in entries(current):
            path, relative = current / name, prefix + normalized(name)
            if why:
                passed[relative] = why
            elif kind == "folder" and is_link:
                linked.append((f"{relative}/", path, chain, links + 1))
            elif kind == "folder":
                inner = _identity(path)
                if links and not repeated and inner in seen:
                    continue  # A folder inside a linked one that lies below the root as well.
                seen.add(inner)
                todo.append((f"{relative}/", path, chain | {inner}, links))
            elif suffixes and (suffix := os.path.splitext(name)[1].lower()) not in suffixes:
                passed[relative] = suffix or "no suffix"
            elif relative in files:
                raise UserError(f"{files[relative]} and {path} have one name in two Unicode forms: rename one of them")
            else:
                files[relative] = path
    ordered = sorted(files, key=lambda name: name.split("/"))
    return Listing({name: files[name] for name in ordered}, dict(sorted(passed.items())))


def match(
    root: str | os.PathLike, pattern: str, kinds: Collection[str] = ("file",)
) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (relative name in NFC, path) of what fits a glob pattern without ``**``; case is ignored.

    Args:
        root: folder that the pattern is relative to.
        pattern: parts with ``/``; of what `entries` passes over nothing fits.
        kinds: ``"file"``, ``"folder"`` or both.
    """
    level = [("", pathlib.Path(root))]
    *folders, last = normalized(pattern).lower().split("/")
    for part in folders:
        level = [
            (f"{prefix}{normalized(name)}/", folder / name)
            for prefix, folder in level
            for name, kind, _, why in entries(folder)
            if kind == "folder" and not why and fnmatch.fnmatchcase(normalized(name).lower(), part)
        ]
    for prefix, folder in level:
        for name, kind, _, why in entries(folder):
            if kind in kinds and not why and fnmatch.fnmatchcase(normalized(name).lower(), last):
                yield prefix + normalized(name), folder / name


def entries(folder: str | os.PathLike) -> list[tuple[str, str, bool, str]]:
    """(name as stored, "file" or "folder", whether it is a link, why it is passed over or "") of a folder, sorted."""
    found = []
    with os.scandir(folder) as inside:
        for entry in inside:
            try:
                if entry.is_dir():
                    kind, why = "folder", ""
                elif entry.is_file():
                    kind, why = "file", ""
                else:
                    kind, why = "file", SPECIAL if os.path.exists(entry.path) else NOWHERE
            except OSError:  # A link that leads back to itself.
                kind, why = "file", NOWHERE
            found.append((entry.name, kind, entry.is_symlink(), LITTER if is_litter(entry.name) else why))
    return sorted(found)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name, without its path, is what a system or an editor leaves behind."""
    name = name.lower()
    return name in _LITTER_NAMES or name.startswith(_LITTER_STARTS) or name.endswith(_LITTER_ENDS)


def normalized(name: str) -> str:
    """A name in the form in which names are compared, Unicode's NFC."""
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> str:
    """A name without the suffix of an image, in any case; other names as they are."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in suffixes else name


def _identity(folder: pathlib.Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
