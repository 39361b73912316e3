"""Where numbers and pictures go: one JSON line a step, and TensorBoard events."""

import json
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import tensorboardX
from etils import epath


class Writer(Protocol):
    """What the loop writes to."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line of numbers."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one picture [H, W, 3] uint8."""

    def close(self) -> None:
        """Flushes."""


class NoWriter:
    """Writes nothing: for all processes but the first."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Writer`."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """See `Writer`."""

    def close(self) -> None:
        """See `Writer`."""


class MetricWriter:
    """Writes ``metrics.jsonl`` and TensorBoard events under a workdir; only the first process makes one.

    ``metrics.jsonl`` holds one JSON object a line, ``step`` first. A continued run first drops the lines after the step
    it continues from, so that every step stands once. A remote workdir is rewritten at each flush, because object
    stores cannot append, and gets no TensorBoard events, which need a local folder.
    """

    def __init__(self, workdir: epath.Path, start: int):
        self._path = workdir / "metrics.jsonl"
        self._local = "://" not in str(workdir)
        self._lines = [line for line in self._read() if json.loads(line)["step"] <= start]
        self._path.write_text("".join(line + "\n" for line in self._lines))
        self._events = None
        if self._local:
            self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def _read(self) -> list[str]:
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines()
        return [line for line in lines if line.endswith("}")]  # A killed run may leave half a line.

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line."""
        line = json.dumps({"step": step} | {k: float(v) for k, v in values.items()})
        self._lines.append(line)
        if self._local:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        else:
            self._path.write_text("".join(line + "\n" for line in self._lines))
        if self._events:
            for key, value in values.items():
                self._events.add_scalar(key, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one picture ``[H, W, 3]`` uint8 to the events."""
        if self._events:
            self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes the events."""
        if self._events:
            self._events.close()
