# SPDX-License-Identifier: Apache-2.0
"""Validates any submission package, ours or a stranger's, and names the mistakes that servers only answer with
silence."""

import collections
import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from PIL import Image, UnidentifiedImageError

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.files import check_file
from nightjax.core.types import IGNORE
from nightjax.data import labels
from nightjax.inference.submission import PACKAGES, Content, Package

WARNING = "warning: "
"""Begins a line about something a server accepts but that is probably not meant."""

MAX_BYTES = 64 << 20
"""No label map of these benchmarks is larger; larger members of a zip are not unpacked."""

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
"""What reading a broken PNG, or a broken or encrypted member of a zip, raises."""

Files = Mapping[str, Callable[[], bytes]]
"""Path inside the package to its reader."""


def check_package(path: str | os.PathLike, benchmark: str, names: Iterable[str] | None = None) -> list[str]:
    """Checks a package; nothing is unpacked or changed.

    Args:
        path: folder or zip.
        benchmark: key of `PACKAGES`.
        names: images that must be there (ids or file names); None for the official numbers of frames.

    Returns:
        One line a fault, ``"kind: what, where"``; lines that begin with `WARNING` do not invalidate the package.

    Raises:
        UserError: unknown benchmark, or neither a folder nor a readable zip.
    """
    package = choose(PACKAGES, benchmark, "benchmark")
    path = pathlib.Path(path)
    if path.is_dir():
        found = sorted(item for item in path.rglob("*") if item.is_file())
        return _check({item.relative_to(path).as_posix(): item.read_bytes for item in found}, package, names)
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _check(_members(archive), package, names)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:  # ValueError: names that are no UTF-8
        raise UserError(f"{path} is no folder and no readable zip ({error}): give --check a package") from error


def _members(archive: zipfile.ZipFile) -> Files:
    def reader(info: zipfile.ZipInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            if info.file_size > MAX_BYTES:
                raise OSError(f"unpacks to {info.file_size} bytes")
            with archive.open(info) as file:
                return file.read(MAX_BYTES)

        return read

    return {info.filename: reader(info) for info in archive.infolist() if not info.is_dir()}


def _check(files: Files, package: Package, names: Iterable[str] | None) -> list[str]:
    faults, files = _without_top(files, package)
    frames: dict[str, dict[str, str]] = {}
    extra = []
    for part in package.folders:
        frames[part] = {}
        inside = [name for name in files if not part or name.startswith(f"{part}/")]
        if not inside:
            faults.append(f"missing folder: {part}/" if part else "missing file: the package is empty")
        for name in inside:
            frame = package.frame_of(name.rsplit("/", 1)[-1]) if name.lower().endswith(".png") else None
            if frame is None or frame in frames[part]:
                extra.append(name)
            else:
                frames[part][frame] = name
    if "" not in package.folders:
        extra += [name for name in files if name.split("/")[0] not in package.folders or "/" not in name]
    wanted = set().union(*frames.values())
    if names is not None:
        wanted = {package.frame_of(name) or name for name in names}
    elif wanted and len(wanted) not in package.counts:
        counts = " or ".join(map(str, package.counts))
        faults.append(f"missing file: {len(wanted)} frames, the official test set has {counts}")
    for part, content in package.folders.items():
        lacking = sorted(wanted - frames[part].keys()) if frames[part] else ()
        faults += _sum_up("missing file", lacking, f"in {part}/" if part else "in the package")
        extra += [name for frame, name in frames[part].items() if frame not in wanted]
        known = {frame: name for frame, name in frames[part].items() if frame in wanted}
        faults += _check_folder(part, content, {name: files[name] for name in known.values()}, package)
    return faults + _sum_up("extra file", sorted(extra), "to remove")


def _without_top(files: Files, package: Package) -> tuple[list[str], Files]:
    """The package without one folder around it, which servers do not look into."""
    tops = {name.split("/")[0] for name in files}
    second = {name.split("/")[1] for name in files if name.count("/") > 1}
    if "" in package.folders or tops & package.folders.keys() or not second & package.folders.keys():
        return [], files
    top = next(name.split("/")[0] for name in files if name.count("/") > 1 and name.split("/")[1] in package.folders)
    inner = {name.removeprefix(f"{top}/"): read for name, read in files.items()}
    return [f"nested folder: everything lies in {top}/: zip its content, not the folder"], inner


def _check_folder(part: str, content: Content, files: Files, package: Package) -> list[str]:
    """Faults of one folder's files, one line a kind."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    counts, smallest, largest = np.zeros(256, np.int64), 65535, 0
    for name, read in files.items():
        fault, values = _read(read, content, package.size)
        if values is None:
            found[fault].append(name)
        elif content == "confidence":
            smallest, largest = min(smallest, int(values.min())), max(largest, int(values.max()))
        else:
            counts += labels.histogram(values)
    faults = [line for fault, where in found.items() for line in _sum_up(fault, where, "")]
    where = f"in {part}/" if part else "in the package"
    if content != "confidence":
        return faults + _judge_values(counts, content, where)
    if smallest == largest:
        faults.append(f"{WARNING}confidence: every pixel has {largest}: average UIoU will mean nothing")
    elif 0 < largest <= 255:
        faults.append(f"wrong values: confidence ends at {largest} {where}: the scale is 0..65535")
    return faults


def _read(read: Callable[[], bytes], content: Content, size: tuple[int, int]) -> tuple[str, np.ndarray | None]:
    """A fault, or the pixels; size and kind are judged from the header, before decoding."""
    try:
        image = Image.open(io.BytesIO(read()), formats=("PNG",))
        if image.size != size[::-1]:
            return f"wrong size: {image.width}x{image.height}, expected {size[1]}x{size[0]}", None
        mode, expected = image.mode, ("I;16", "I") if content == "confidence" else ("L",)
        if mode not in expected:
            return _wrong_mode(mode, content), None
        return "", np.asarray(image)
    except UnidentifiedImageError:
        return "damaged file: no PNG", None
    except _DAMAGE as error:
        return f"damaged file: {error}", None


def _wrong_mode(mode: str, content: Content) -> str:
    if mode.startswith(("RGB", "P")):
        return f"color image: mode {mode}, expected {'16' if content == 'confidence' else '8'}-bit gray values"
    if content == "confidence":
        return f"8-bit confidence: mode {mode}, expected 16-bit gray values 0..65535"
    return f"wrong values: mode {mode}, expected 8-bit gray values"


def _judge_values(counts: np.ndarray, content: Content, where: str) -> list[str]:
    encoding = "label_ids" if content == "label_ids" else "train_ids"
    if labels.suspicious_encoding(counts, encoding):
        given, wanted = ("train ids", "label ids") if encoding == "label_ids" else ("label ids", "train ids")
        return [f"wrong ids: {given} {where}, where {wanted} are expected"]
    wrong = list(labels.unexpected_values(counts, encoding))
    if counts[IGNORE] and content != "train_ids_invalid":
        wrong.append(IGNORE)
    return [f"wrong values: {', '.join(map(str, wrong[:8]))} {where}"] if wrong else []


def _sum_up(kind: str, names: Iterable[str], where: str) -> list[str]:
    names = list(names)
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [" ".join(f"{kind}: {names[0]}{more} {where}".split())]
