# SPDX-License-Identifier: Apache-2.0
"""What libraries print beside an error: kept back, so that a user's mistake is one line, and told with a defect."""

import contextlib
import logging
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, TextIO


class Noise:
    """What was kept back."""

    def __init__(self):
        self._lines: list[str] = []

    def add(self, text: str) -> None:
        """Keeps a text back."""
        self._lines.append(text)

    def tell(self) -> None:
        """Prints everything."""
        for text in self._lines:
            print(text, file=sys.stderr)


class _Handler(logging.Handler):
    def __init__(self, noise: Noise):
        super().__init__()
        self._noise = noise

    def emit(self, record: logging.LogRecord) -> None:
        self._noise.add(self.format(record))


@contextlib.contextmanager
def kept_back() -> Iterator[Noise]:
    """Keeps back what threads and coroutines die of, and what asyncio and Orbax log about it."""
    noise = Noise()

    def of_thread(args: threading.ExceptHookArgs) -> None:
        noise.add("".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)))

    def unraisable(args: Any) -> None:
        noise.add(f"{args.err_msg or 'ignored'}: {args.object!r}: {args.exc_value!r}")

    handler = _Handler(noise)
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl", "orbax")]
    before = threading.excepthook, sys.unraisablehook, [logger.propagate for logger in loggers]
    threading.excepthook, sys.unraisablehook = of_thread, unraisable
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield noise
    finally:
        for logger, propagate in zip(loggers, before[2], strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
        if sys.exc_info()[0] is None:  # At the end of a process that failed, more of the same may come.
            threading.excepthook, sys.unraisablehook = before[:2]


def nobody_listens() -> bool:
    """Whether the reader of standard output is gone; what is still to be written then goes nowhere."""
    if not _is_broken(sys.stdout):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _is_broken(stream: TextIO) -> bool:
    """Whether what a stream has kept cannot be written, or, of one that keeps nothing, a byte more could not."""
    try:
        stream.flush()
        if hasattr(select, "poll"):  # Windows has none.
            listener = select.poll()
            listener.register(stream.fileno(), select.POLLOUT)
            return any(event & (select.POLLERR | select.POLLHUP) for _, event in listener.poll(0))
    except BrokenPipeError:
        return True
    except (OSError, ValueError):  # No descriptor, as in tests.
        return False
    return False
