# SPDX-License-Identifier: Apache-2.0
"""Runs a command in this process, watches how it ends, and judges it."""

import contextlib
import dataclasses
import faulthandler
import io
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from nightjax import cli as command
from nightjax import train
from nightjax.core import cli

PROGRESS = re.compile(r"\d+/\d+ \[")
"""In the lines of a progress bar."""


class Hang(BaseException):
    """A command took longer than it may."""


class Reached(BaseException):
    """A run has passed all checks and would compile its step."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        kind: ``"line"`` (one line, exit code 2), ``"done"``, ``"reached"`` (all checks passed, not run further),
            ``"faults"`` (what a checking verb found), ``"noise"`` (more than one line), ``"traceback"`` or ``"hang"``.
        text: the line, or the end of what was printed.
    """

    kind: str
    text: str

    def is_bad(self, wrong: bool) -> bool:
        """Whether an input may not end so.

        Args:
            wrong: whether the input makes no sense, so that nothing may run on it.
        """
        return self.kind in ("noise", "traceback", "hang") or (wrong and self.kind in ("done", "reached"))


def run(verb: str, words: Sequence[str], seconds: float, *, compile_step: bool = False) -> Outcome:
    """Calls a verb as ``nightjax VERB WORDS`` does.

    Args:
        verb: of `nightjax.cli.VERBS`.
        words: its flags.
        seconds: after which it counts as hanging.
        compile_step: whether training compiles its step and goes on; otherwise that is where it ends.
    """
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, [f"nightjax {verb}", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limit(seconds), _stop_at(compile_step):
            cli.run(command.find(verb).main)
        kind = "done"
    except SystemExit as end:
        kind = _kind(end.code, out.getvalue(), err.getvalue())
    except Hang:
        kind = "hang"
    except Reached:
        kind = "reached"
    except BaseException:
        return Outcome("traceback", traceback.format_exc())
    finally:
        sys.argv = argv
    lines = (err.getvalue() or out.getvalue()).strip().splitlines() or [""]
    if kind == "noise":
        return Outcome(kind, err.getvalue())
    return Outcome(kind, lines[-1])


def run_process(verb: str, words: Sequence[str], seconds: float) -> Outcome:
    """Calls a verb in a process of its own."""
    command_line = [sys.executable, "-m", "nightjax", verb, *words]
    try:
        done = subprocess.run(command_line, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        trains = b"first step after" in (late.stdout or b"")
        return Outcome("reached", "it trains") if trains else Outcome("hang", "")
    except ValueError as error:  # No process takes a zero byte.
        return Outcome("line", str(error))
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    if "Traceback (most recent call last)" in err:
        return Outcome("traceback", err)
    kind = _kind(done.returncode, out, err) if done.returncode else "done"
    lines = (err if kind == "line" else err or out).strip().splitlines() or [""]
    return Outcome(kind, err if kind == "noise" else lines[-1])


def _kind(code: object, out: str, err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip() and not PROGRESS.search(line)]
    if code == 2 and len(lines) == 1 and lines[0].startswith("nightjax: error: "):
        return "line"
    if code in (1, 2) and not lines and out.strip():
        return "faults"
    return "done" if code in (0, None) and not lines else "noise"


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raises Hang after so many seconds; ends this process if it sits in C code that no exception reaches."""

    def over(*_: object) -> None:
        raise Hang

    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _stop_at(compile_step: bool) -> Iterator[None]:
    def reached(*_: object) -> None:
        raise Reached

    own: Callable = train.compile_step
    try:
        if not compile_step:
            train.compile_step = reached
        yield
    finally:
        train.compile_step = own
