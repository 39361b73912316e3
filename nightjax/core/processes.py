# SPDX-License-Identifier: Apache-2.0
"""Jobs of several processes: they join, agree that they do the same, and end with one line when one of them is gone.

JAX's coordination service watches the processes, and aborts those that are left when one is gone. Its dump is kept
back here, and told only if the abort had another cause.
"""

import atexit
import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

import nightjax
from nightjax.core.errors import UserError, first_line

JOIN_SECONDS = 300
"""So long the processes of a job wait for each other at the start."""

HEARTBEAT = 30
"""A process of which nothing is heard for so many seconds is gone. All others end within a minute."""

GRACE = 3.0
"""So long a process stays after a mistake. The end of process 0 ends all others, which may find the same mistake."""

DELAY = 1.0
"""Seconds for which what libraries print is kept back."""

DUMP = 20.0
"""The same of what the coordination service prints. It names the functions of its stack before it aborts, which takes
seconds on a busy machine."""

LOST = (
    "another process of this job is gone: it was killed, crashed, or ended with a line of its own. The checkpoints are "
    "unharmed; start all processes again to go on"
)

_OF_SERVICE = re.compile(
    r"coordination.?service|distributed service|preemption_sync|Gloo|gloo/|NCCL|closed by peer|reset by peer|"
    r"heartbeat|RegisterTask|another task",
    re.IGNORECASE,
)
"""What JAX's coordination service and collectives say when a process is gone."""


class Disagreement(UserError):
    """The processes of a job do not do the same; all of them raise this."""


def check_flags(distributed: bool, coordinator: str | None, processes: int | None, process_id: int | None) -> bool:
    """Whether the flags of a command ask for several processes.

    Args:
        distributed: whether all else is found by itself.
        coordinator: ``HOST:PORT`` of process 0.
        processes: their number.
        process_id: number of this one, from 0.

    Raises:
        UserError: they do not fit together.
    """
    if coordinator is None:
        if alone := [f"--{n}" for n, v in (("processes", processes), ("process_id", process_id)) if v is not None]:
            raise UserError(f"{alone[0]} needs --coordinator=HOST:PORT, the address of process 0")
        return distributed
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16) or re.search(r"\s", host):
        raise UserError(f"--coordinator={coordinator!r} is no HOST:PORT, such as 10.0.0.1:1234")
    if processes is None or process_id is None:
        lacking = "processes" if processes is None else "process_id"
        raise UserError(f"--coordinator needs --{lacking} too: the number of processes, and which one this is")
    if processes < 1:
        raise UserError(f"--processes={processes} must be 1 or more")
    if not 0 <= process_id < processes:
        raise UserError(f"--process_id={process_id} must be from 0 to {processes - 1}, as --processes={processes}")
    return True


def join(coordinator: str | None, processes: int | None, process_id: int | None, seconds: int = JOIN_SECONDS) -> None:
    """Joins the other processes of a job; on TPU all three arguments are found by themselves.

    From here on this process ends with one line and exit code 2 when another one is gone.

    Raises:
        UserError: they cannot be reached.
    """
    late = f"not all {processes or ''} processes of the job came within {seconds} s: start all of them, and check "
    aborts = _Aborts(f"{late}--coordinator, --processes and --process_id")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (ValueError, RuntimeError, IndexError) as error:
        aborts.close()
        raise UserError(
            f"cannot join the other processes ({first_line(error)}); outside of TPU give --coordinator=HOST:PORT, "
            "--processes and --process_id"
        ) from error
    aborts.line = LOST
    _JOINED.append(aborts)
    atexit.register(_end, aborts)


_JOINED: list[Any] = []
"""What watches over this process once it has joined others."""


def _end(aborts: Any) -> None:
    """Leaves the job together with the others, still watched: they may be gone by now."""
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()
    aborts.close()


def lost(error: BaseException | None) -> bool:
    """Whether an error of a job of several processes says that another process is gone."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen and is_several():
        seen.add(id(error))
        if not isinstance(error, UserError) and _OF_SERVICE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_several() -> bool:
    """Whether this process has joined others by `join`; asks no device, which could wait for the others."""
    return bool(_JOINED)


def leave(code: int, line: str = "") -> NoReturn:
    """Ends this process of a job: at the usual end it would wait for the others, which may wait for this one.

    Args:
        code: its exit code.
        line: to print on standard error.
    """
    for watch in _JOINED:
        watch.line, watch.code = "", code  # All is said, should the service abort this process meanwhile.
    with contextlib.suppress(Exception):
        if line:
            print(line, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    time.sleep(GRACE)
    os._exit(code)


def agree(facts: Mapping[str, Any]) -> None:
    """Compares what the processes of a job are about to do; returns at once if there is only one.

    Args:
        facts: name to a JSON-serializable value, which must be the same on all processes. Their programs are compared
            too. Nested mappings are compared key by key.

    Raises:
        Disagreement: something differs. All processes raise the same.
    """
    if jax.process_count() == 1:
        return
    own = json.dumps(dict(facts) | {"program": program()}, sort_keys=True).encode()
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(own)))))
    padded = np.frombuffer(own.ljust(longest), np.uint8)
    told = [json.loads(bytes(row)) for row in np.asarray(multihost_utils.process_allgather(padded))]
    for index, other in enumerate(told):
        if difference := _difference(told[0], other):
            raise Disagreement(
                f"the processes of this job do not do the same: {difference} on process {index}; start all of them "
                "with the same command, program and data"
            )


def program() -> dict[str, str]:
    """What decides beside the config: versions, and a hash of nightjax's own files."""
    import grain  # Verbs that read no data need not import it.

    root, digest = pathlib.Path(nightjax.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    versions = {"jax": jax.__version__, "grain": grain.__version__, "numpy": np.__version__}
    return {"nightjax": nightjax.__version__, "nightjax's files": digest.hexdigest()[:16]} | versions


def _difference(one: Any, other: Any, place: str = "") -> str:
    """The first difference of two JSON values, ``"config.train.steps is 4 on process 0 and 6"``, or ""."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if found := _difference(one.get(key), other.get(key), f"{place}.{key}".lstrip(".")):
                return found
        return ""
    return "" if one == other else f"{place} is {str(one)[:80]} on process 0 and {str(other)[:80]}"


class _Aborts:
    """Keeps back for a moment what libraries print, and turns the coordination service's abort into a line.

    What Python prints goes straight on.

    Args:
        line: to print at such an abort; may be changed, as may the exit code.
    """

    def __init__(self, line: str):
        self.line, self.code = line, 2
        self._kept: list[bytes] = []
        self._err = os.dup(2)
        self._read, write = os.pipe()
        os.dup2(write, 2)
        os.close(write)
        os.set_blocking(self._read, False)
        self._python, sys.stderr = sys.stderr, os.fdopen(os.dup(self._err), "w", buffering=1, errors="backslashreplace")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, daemon=True, name="stderr")
        self._thread.start()
        # Python's own handler would wait for the main thread, and the process is over before that.
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._handler)

    def close(self) -> None:
        """Passes everything on, and leaves standard error as it was."""
        if self._over.is_set():
            return
        ctypes.CDLL(None).signal(signal.SIGABRT, 0)
        os.dup2(self._err, 2)
        sys.stderr = self._python
        self._over.set()
        self._thread.join()

    def _pass_on(self) -> None:
        while not self._over.wait(DELAY / 10):
            self._take()
            if not self._kept:
                continue
            count = len(self._kept)
            of_service = _OF_SERVICE.search(b"".join(self._kept).decode(errors="replace"))
            if not self._over.wait(DUMP if of_service else DELAY):
                self._tell(count)
        self._take()
        self._tell(len(self._kept))

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self._read, 1 << 16):
                self._kept.append(text)

    def _tell(self, count: int) -> None:
        for text in self._kept[:count]:
            os.write(self._err, text)
        del self._kept[:count]

    def _aborted(self, number: int) -> None:
        del number
        self._take()
        text = b"".join(self._kept).decode(errors="replace")
        if not _OF_SERVICE.search(text):
            os.write(self._err, text.encode())
            return  # The abort goes on.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        if self.line:
            os.write(self._err, f"nightjax: error: {self.line}\n".encode())
        os._exit(self.code)
