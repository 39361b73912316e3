# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while modules are imported: one line and exit code 130, as later; see `core.cli.run`."""

import os
import signal
import sys
import threading
import types


def end_at_once() -> None:
    """Lets SIGINT end this process with one line until `raise_again`.

    An exception would be lost in some module's own code, or come out of it as another error.
    """
    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if plain and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Lets SIGINT raise KeyboardInterrupt again, as Python does."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: types.FrameType | None) -> None:
    del number, frame
    print("nightjax: interrupted", file=sys.stderr, flush=True)
    os._exit(130)
