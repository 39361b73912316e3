# SPDX-License-Identifier: Apache-2.0
"""What a folder held when it was written: size and SHA-256 of each file, in ``manifest.json`` inside it."""

import concurrent.futures
import functools
import hashlib
import json

from etils import epath

from nightjax.core import files
from nightjax.core.errors import UserError, first_line

FILE = "manifest.json"

READERS = 4
"""So many files are read at a time."""


def write(folder: epath.PathLike) -> None:
    """Writes the manifest of a folder whose files are all there."""
    root = epath.Path(folder)
    found = {name: {"size": size, "sha256": digest} for name, (size, digest) in _contents(root).items()}
    files.write_whole(root / FILE, json.dumps({"files": found}, indent=1))


def is_there(folder: epath.PathLike) -> bool:
    """Whether a folder has a manifest; those that earlier versions wrote have none."""
    return (epath.Path(folder) / FILE).exists()


def fault(folder: epath.PathLike) -> str:
    """What has happened to the files of a folder since its manifest was written, in a few words; "" for nothing."""
    root = epath.Path(folder)
    try:
        wanted = files.read_json(root / FILE, dict, "")["files"]
        wanted = {str(name): (entry["size"], entry["sha256"]) for name, entry in wanted.items()}
    except (UserError, KeyError, TypeError, AttributeError):
        return f"its {FILE} is damaged"
    try:
        found = _contents(root, only=frozenset(wanted))
    except OSError as error:
        return f"it cannot be read: {first_line(error)}"
    wrong = [name for name, facts in wanted.items() if found.get(name) != facts]
    if not wrong:
        return ""
    what = "is missing" if wrong[0] not in found else "has another content than when it was written"
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]} {what}{more}"


def _contents(root: epath.Path, only: frozenset[str] | None = None) -> dict[str, tuple[int, str]]:
    """Relative name to (size, SHA-256) of every file below a folder but the manifest, or of some."""
    name = lambda path: str(path).removeprefix(f"{root}/")
    found = [path for path in files.below(root) if name(path) != FILE]
    plain = [path for path in found if not files.is_special(path) and (only is None or name(path) in only)]
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        return dict(zip(map(name, plain), pool.map(_facts, plain), strict=True))


def _facts(path: epath.Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
