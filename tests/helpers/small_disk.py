"""A real file system with little room, where this machine lets a test mount one."""

import contextlib
import pathlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def mounted(folder: pathlib.Path, kilobytes: int) -> Iterator[bool]:
    """Mounts a tmpfs of this size; gives False where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    allowed = shutil.which("mount") is not None and not subprocess.run(command, capture_output=True).returncode
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", str(folder)], check=True)


def resize(folder: pathlib.Path, kilobytes: int) -> None:
    """Gives a mounted tmpfs another size."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True)


def leave(folder: pathlib.Path, kilobytes: int) -> None:
    """Leaves a mounted tmpfs so much room."""
    resize(folder, max(4, shutil.disk_usage(folder).used // 1024 + kilobytes))


@contextlib.contextmanager
def short_files(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond so many bytes: the disk answers EFBIG, as a quota answers EDQUOT."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
