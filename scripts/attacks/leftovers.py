# SPDX-License-Identifier: Apache-2.0
"""What a killed process leaves behind: its worker processes, and its shared memory."""

import os
import pathlib
import time

from nightjax.core import workers

SECONDS = 10.0
"""After a kill everything must be gone within this time."""


def descendants(pid: int) -> set[int]:
    """Numbers of the processes that a process has started, and of those that these have started."""
    children: dict[int, list[int]] = {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):  # It has ended.
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, ahead = set(), [pid]
    while ahead:
        ahead += children.get(ahead.pop(), [])
        found |= set(ahead)
    return found


def memory(scratch: pathlib.Path) -> set[str]:
    """Names of the shared memory of all runs that had ``TMPDIR=scratch``."""
    tokens = [path.name for path in scratch.glob(f"nightjax-{os.getuid()}/*")]
    return {path.name for token in tokens for path in workers.SHARED_MEMORY.glob(f"*{workers.PREFIX}{token}_*")}


def after(pids: set[int], scratch: pathlib.Path) -> str:
    """What is left of processes and their memory after `SECONDS` at most, in words; "" for nothing."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        living, files = {pid for pid in pids if os.path.exists(f"/proc/{pid}")}, memory(scratch)
        if not living and not files:
            return ""
        time.sleep(0.05)
    return f"processes {sorted(living)} and shared memory {sorted(files)}"
