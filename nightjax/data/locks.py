# SPDX-License-Identifier: Apache-2.0
"""A lock that one process of a machine holds at a time."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

from nightjax.core.errors import UserError

LOCK = ".prepare.lock"
PATIENCE = 10.0
"""Seconds of waiting for a claim before a line says so."""


def refuse_stores(folder: str) -> None:
    """Refuses to make a data set in an object store, whose files nobody can lock and records nobody can append to.

    Raises:
        UserError: the folder is in a store; says how a data set gets there.
    """
    if "://" in folder:
        raise UserError(
            f"data sets are made on a disk, and this one is not in {folder} yet: make it in a folder of one machine "
            f"(data_dir) and copy that folder: gcloud storage rsync --recursive FOLDER {folder}"
        )


@contextlib.contextmanager
def machine_lock(folder: str) -> Iterator[None]:
    """Held by one process of this machine at a time; others wait.

    Unix locks a file, and the lock ends with the process. Elsewhere a file is claimed by creating it. Windows deletes
    it when the process ends, too; any other system keeps the claim of a process that was killed, and a line says which
    file to delete.

    Args:
        folder: for which the lock is; made if missing.

    Raises:
        UserError: the folder cannot be written, or is in an object store.
    """
    refuse_stores(folder)
    path = pathlib.Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(f"cannot write to data_dir {folder} ({error.strerror}): name another data_dir") from error
    try:
        import fcntl
    except ImportError:
        with _claim(path.with_suffix(".claim")):
            yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _claim(path: pathlib.Path) -> Iterator[None]:
    began, told = time.monotonic(), False
    while True:
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_TEMPORARY", 0))
            break
        except (FileExistsError, PermissionError):  # Windows says the latter while it deletes the file.
            if time.monotonic() - began > PATIENCE and not told:
                told = True
                print(f"waiting for the process that holds {path}; delete the file if there is none", flush=True)
            time.sleep(0.1)
    try:
        yield
    finally:
        os.close(file)
        with contextlib.suppress(OSError):  # Windows deleted it when it was closed.
            path.unlink()
