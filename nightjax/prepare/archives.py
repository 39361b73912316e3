# SPDX-License-Identifier: Apache-2.0
"""Unpacks a downloaded archive once, trusting nothing in it.

These are refused before anything is written: absolute paths and ``..``, links and devices, encrypted members, and
sizes that no archive of photos has (zip bombs). The bytes are counted while they are written, because a header can lie.
A folder gets its final name only when it is complete, so an interrupted run starts again and leaves no half data set.
"""

import dataclasses
import hashlib
import pathlib
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast

from nightjax.core.errors import UserError
from nightjax.core.files import check_file

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Types of archive that `extract` can unpack."""

MAX_RATIO = 50
"""Most bytes unpacked from one byte of an archive. Photos and label PNGs reach 1, csv and JSON 5 to 20."""
FREE_BYTES = 64 << 20
"""A small archive may unpack to this much whatever its ratio."""
MAX_MEMBERS = 2_000_000
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_file: bool
    handle: zipfile.ZipInfo | tarfile.TarInfo


def stem(path: pathlib.PurePath) -> str:
    """The file name without its archive suffix, ``b`` for ``a/b.tar.gz``."""
    name = path.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def extract(archive: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    """Unpacks ``archive`` below ``into`` unless that has been done before.

    Args:
        archive: a local zip or tar file.
        into: folder for unpacked archives, created if missing. Nothing is written outside it.

    Returns:
        The folder with the content. Its name depends on the archive's name, size and time, so that a replaced archive
        is unpacked again.

    Raises:
        UserError: the archive is damaged, encrypted, unsafe or larger than the disk.
    """
    if re.match(r"\w{2,}:/", str(into)):  # pathlib turns gs:// into gs:/
        raise UserError(f"{archive}: can only be unpacked on a local disk, not below {into}; unpack it yourself")
    archive = pathlib.Path(archive)
    check_file(archive)
    status = archive.stat()
    mark = hashlib.sha256(f"{status.st_size}-{status.st_mtime_ns}".encode()).hexdigest()[:8]
    target = pathlib.Path(into) / f"{stem(archive)}-{mark}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=".incomplete-", dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp's 0700 would lock out other users of a shared disk
        _unpack(archive, partial)
        if not target.is_dir():  # another process may have been faster
            partial.rename(target)
    except UserError:
        raise
    except Exception as error:  # damaged headers make zipfile and tarfile raise almost anything
        raise UserError(f"{archive}: cannot be unpacked ({error}); download it again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    open_archive = zipfile.ZipFile if zipfile.is_zipfile(archive) else tarfile.open
    with open_archive(archive) as opened:
        limit = max(FREE_BYTES, MAX_RATIO * archive.stat().st_size)
        members = []
        for member in _members(opened):
            members.append(member)
            _check_name(archive, member)
            limit -= member.size
            if limit < 0 or len(members) > MAX_MEMBERS:
                raise UserError(f"{archive}: unpacks to far more than photos would; it is damaged or a zip bomb")
        needed = sum(member.size for member in members)
        if needed > shutil.disk_usage(folder).free:
            raise UserError(f"{archive}: needs {needed / 1e9:.1f} GB below {folder.parent}, more than is free")
        for member in members:
            path = folder.joinpath(*pathlib.PurePosixPath(member.name).parts)
            if member.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with _open(opened, member) as source:
                _copy(archive, source, path, member)


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            is_file = kind in (0, stat.S_IFREG) and not info.is_dir()
            yield _Member(info.filename, info.file_size, info.is_dir(), is_file, info)
    else:
        for info in opened:
            yield _Member(info.name, info.size, info.isdir(), info.isreg(), info)


def _check_name(archive: pathlib.Path, member: _Member) -> None:
    name = member.name.replace("\\", "/")
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise UserError(f"{archive}: member {member.name!r} would be written outside the folder; do not use this file")
    if not member.is_folder and not member.is_file:
        raise UserError(f"{archive}: member {member.name!r} is a link or a device; do not use this file")


def _open(opened: zipfile.ZipFile | tarfile.TarFile, member: _Member) -> IO[bytes]:
    handle: Any = member.handle
    return opened.open(handle) if isinstance(opened, zipfile.ZipFile) else cast(IO[bytes], opened.extractfile(handle))


def _copy(archive: pathlib.Path, source: IO[bytes], path: pathlib.Path, member: _Member) -> None:
    written = 0
    with path.open("wb") as target:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > member.size:
                raise UserError(f"{archive}: member {member.name!r} is larger than it says; do not use this file")
            target.write(chunk)
    if written < member.size:
        raise UserError(f"{archive}: member {member.name!r} ends too early; download the archive again")
