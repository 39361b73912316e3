# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a folder: a lock on local disks, and a claim that is renewed in stores without locks."""

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from nightjax.core import files
from nightjax.core.errors import UserError

LOCK = ".lock"
CLAIM = ".claim.json"

RENEWAL = 15.0
"""Seconds from one renewal of a claim to the next."""

PATIENCE = 4 * RENEWAL
"""Seconds after which a claim that nobody renews is nobody's."""

SETTLING = 0.8
"""Seconds within which two that claim a folder at the same time see each other."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: epath.PathLike) -> Iterator[None]:
    """Holds a folder, which exists, against other runs.

    A lock ends with its process, however that ends. A claim, ``.claim.json`` with host, process and time, is renewed
    while its process lives; one that is not renewed is taken over after a while, with a line.

    Raises:
        UserError: another run holds it; names that run and the file.
        OSError: the folder cannot be written.
    """
    root = epath.Path(folder)
    with contextlib.ExitStack() as held_:
        if "://" in os.fspath(root) or not _locked(root, held_):
            held_.enter_context(_claimed(root))
        yield


def _locked(root: epath.Path, held_: contextlib.ExitStack) -> bool:
    """Locks a local folder until the stack closes; False where the system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    path = os.path.join(os.fspath(root), LOCK)
    while True:
        file = open(path, "a+")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(1000)
            file.close()
            if error.errno in _NO_LOCKS:
                return False
            raise UserError(
                f"{root} is in use by {_words(holder)} ({path}): wait for that run, stop it, or choose another "
                "--workdir"
            ) from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # Whoever held it has just removed it.

    def release() -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        file.close()

    held_.callback(release)
    with contextlib.suppress(OSError):  # On a full disk it locks as well, but names nobody.
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(_self()).encode())
    return True


@contextlib.contextmanager
def _claimed(root: epath.Path) -> Iterator[None]:
    """Claims a folder by a file that is written again and again."""
    path, own = root / CLAIM, _self()
    if path.exists() and not _is_gone(before := _read(path)):
        print(f"{root} is claimed by {_words(before)}; if that run is gone, delete {path}", flush=True)
        print(f"waiting up to {PATIENCE:g} s to see whether the claim is renewed", flush=True)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and path.exists():
            if (now := _read(path)) != before:
                raise UserError(
                    f"{root} is in use by {_words(now)}: wait for that run, stop it, or choose another --workdir"
                )
            time.sleep(PATIENCE / 60)
        if path.exists():
            print(f"the claim of {_words(before)} is stale, and taken over", flush=True)
    path.write_text(json.dumps(own))
    time.sleep(SETTLING)
    if _id(_read(path)) != own["id"]:
        raise UserError(f"another run has claimed {root} at this moment: choose another --workdir")
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEWAL):
            with contextlib.suppress(OSError):  # A store that does not answer may answer next time.
                if path.exists() and _id(_read(path)) != own["id"]:
                    print(f"nightjax: error: another run has taken over {root}: this one ends", file=sys.stderr)
                    os._exit(2)
                path.write_text(json.dumps(own | {"renewed": _now()}))

    thread = threading.Thread(target=renew, daemon=True, name="claim")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _self() -> dict[str, Any]:
    """What names this process to others."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": _now(), "id": secrets.token_hex(8)}


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


def _read(path: epath.Path) -> str:
    """The text of a claim; "" if it has just been removed or is damaged."""
    try:
        return files.read_bytes(path, 1000).decode(errors="replace")
    except UserError:
        return ""


def _facts(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _id(text: str) -> Any:
    return _facts(text).get("id")


def _is_gone(text: str) -> bool:
    """Whether a claim is of a process of this host that is not there any more."""
    facts = _facts(text)
    if facts.get("host") != socket.gethostname() or not isinstance(facts.get("pid"), int) or os.name != "posix":
        return False
    try:
        os.kill(facts["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _words(text: str) -> str:
    facts = _facts(text)
    if not {"host", "pid", "since"} <= facts.keys():
        return "another run"
    renewed = f", renewed {facts['renewed']}" if "renewed" in facts else ""
    return f"process {facts['pid']} on {facts['host']} since {facts['since']}{renewed}"
