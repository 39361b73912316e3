# SPDX-License-Identifier: Apache-2.0
"""Worker processes: they end with the process that started them, and leave no shared memory behind.

Python's resource tracker unlinks the shared memory of a process that was killed, unless it is killed with it. What is
left then is found by its name on the next start: each process names its memory by a token, and holds a lock of that
name as long as it lives.
"""

import atexit
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.shared_memory
import os
import pathlib
import secrets
import tempfile
import threading
from collections.abc import Callable
from typing import Any

SHARED_MEMORY = pathlib.Path("/dev/shm")
"""Where Linux keeps shared memory as files."""

PREFIX = "nj"
"""Of all names. With a token and what Python adds they stay below the 14 letters that every system allows."""


def end_with_parent() -> None:
    """Lets this worker process end as soon as the one that started it is gone, in whatever way that ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # Nobody is there to read what the worker does.

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


def initializer(also: Callable[..., object] | None = None, *arguments: Any) -> None:
    """What every worker process begins with.

    Args:
        also: called afterwards, with ``arguments``.
    """
    end_with_parent()
    if also is not None:
        also(*arguments)


@functools.cache
def token() -> str:
    """A text that the names of this process's shared memory begin with; "" where the system keeps no such files.

    The first call unlinks what killed processes have left.
    """
    try:
        import fcntl
    except ImportError:  # Windows forgets shared memory with the last process that has opened it.
        return ""
    if not SHARED_MEMORY.is_dir():
        return ""
    own = secrets.token_hex(3)
    try:
        _locks().mkdir(mode=0o700, exist_ok=True)
        if _locks().lstat().st_uid != os.getuid():  # Somebody else made it, for names of their own.
            return ""
        unlink_leftovers()
        path = _locks() / own
        file = path.open("w")
    except OSError:
        return ""
    fcntl.flock(file, fcntl.LOCK_EX)
    _HELD.append(file)
    atexit.register(path.unlink, missing_ok=True)
    multiprocessing.current_process()._config["semprefix"] = f"/{PREFIX}{own}_"  # pyright: ignore
    return own


_HELD: list[Any] = []
"""The open lock of this process."""


def name_memory(own: str) -> None:
    """Lets the shared memory that this worker process makes begin with a token of the process that started it."""
    if own and hasattr(multiprocessing.shared_memory, "_SHM_NAME_PREFIX"):
        multiprocessing.shared_memory._SHM_NAME_PREFIX = f"/{PREFIX}{own}_"  # pyright: ignore


def unlink_leftovers() -> int:
    """Unlinks the shared memory of processes that are gone; returns how many files there were."""
    import fcntl

    count = 0
    for lock in list(_locks().iterdir()):
        with contextlib.suppress(OSError), lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Fails while its process lives.
            for kind in ("", "sem."):
                for left in SHARED_MEMORY.glob(f"{kind}{PREFIX}{lock.name}_*"):
                    left.unlink(missing_ok=True)
                    count += 1
            lock.unlink(missing_ok=True)
    if count:
        print(f"unlinked {count} files of shared memory that a killed run had left in {SHARED_MEMORY}", flush=True)
    return count


def _locks() -> pathlib.Path:
    return pathlib.Path(tempfile.gettempdir()) / f"nightjax-{os.getuid()}"
