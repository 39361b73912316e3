# SPDX-License-Identifier: Apache-2.0
"""How far long work is: a bar on a terminal, a plain line now and then where the output is kept."""

import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 5.0
"""Between two plain lines."""


class Progress(tqdm):
    """`tqdm.tqdm`, which is used the same way, but for output that is no terminal.

    There it prints a line such as ``"clip.mp4: 120 of 900 frames"`` to standard output, at most one every `SECONDS`,
    and nothing for work that is done sooner. Standard error is left to errors.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self._plain = not sys.stderr.isatty()
        self._said = time.monotonic()
        if self._plain:
            kwargs = {"mininterval": 1.0} | kwargs | {"file": sys.stdout}
        super().__init__(*args, **kwargs)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows how far the work is."""
        if not self._plain:
            super().display(msg, pos)
        elif msg is None and self.n and time.monotonic() - self._said >= SECONDS:
            self._said = time.monotonic()
            total = f" of {self.total}" if self.total else ""
            print(f"{self.desc + ': ' if self.desc else ''}{self.n}{total} {self.unit}s", flush=True)

    def close(self) -> None:
        """Ends the bar; says nothing more where there is none."""
        if self._plain:
            self.leave = False
        super().close()
