# SPDX-License-Identifier: Apache-2.0
"""Where a run's numbers and images go: one JSON line a step, TensorBoard events, and the table of its parameters."""

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from clu import parameter_overview
from etils import epath

from nightjax.core import files, metric_lines
from nightjax.core.types import PyTree


class Writer(Protocol):
    """What the loop writes to."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of one step."""

    def events(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers to TensorBoard's events alone."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one image [H, W, 3] uint8."""

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text in Markdown to the events."""

    def close(self) -> None:
        """Flushes."""


class NoWriter:
    """Writes nothing; for every process but the first."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers of one step by name."""

    def events(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers to the events alone."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes one image of a step."""

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text."""

    def close(self) -> None:
        """Ends writing; nothing is lost after it."""


class MetricWriter:
    """Writes ``metrics.jsonl`` and TensorBoard events to a workdir; only the first process makes one.

    ``metrics.jsonl`` holds one JSON object a line, ``step`` first. A run that continues drops the lines after the step
    that it continues from, so that each step is there once. In a remote workdir the file is written anew for each line,
    because object stores cannot append, and there are no TensorBoard events, which need a local folder.

    Args:
        workdir: of the run.
        start: step that the run continues from; 0 for a new one.
    """

    def __init__(self, workdir: epath.Path, start: int):
        self._path = workdir / "metrics.jsonl"
        self._local = "://" not in str(workdir)
        records, damaged = metric_lines.read(self._path)
        if damaged:
            print(f"{self._path}: {damaged} damaged line(s) dropped", flush=True)
        self._records = [record for record in records if record["step"] <= start]
        metric_lines.replace(self._path, self._records)
        self._events = None
        if self._local:
            self._events = _Events(workdir / "tensorboard", start + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line."""
        record = {"step": step} | {k: float(v) for k, v in values.items()}
        self._records.append(record)
        if self._local:
            metric_lines.append(self._path, record)
        else:
            metric_lines.replace(self._path, self._records)
        if self._events:
            self._events.scalars(step, values)

    def events(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers to the events, not to ``metrics.jsonl``."""
        if self._events:
            self._events.scalars(step, values)

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text in Markdown to the events."""
        if self._events:
            self._events.text(step, name, text)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one image [H, W, 3] uint8 to the events."""
        if self._events:
            self._events.image(step, name, image)

    def close(self) -> None:
        """Flushes the events."""
        if self._events:
            self._events.close()


FLUSHED = 60.0
"""Seconds between two times at which events go to the disk."""


class _Events:
    """TensorBoard events, written by this thread.

    tensorboardX has a thread of its own for it, which dies where the disk is full, and then everything waits for it.

    What cannot be written any more is left out, with a line; ``metrics.jsonl`` has the numbers.
    """

    def __init__(self, folder: epath.Path, first: int):
        from tensorboardX import event_file_writer, summary  # It imports torch where that is installed.
        from tensorboardX.proto import event_pb2

        events: Any = event_pb2  # Its names are made when it is imported.
        self._summary, self._event = summary, events.Event
        self._folder: epath.Path = folder
        self._file: Any = None
        self._flushed = 0.0
        with self._left_out_where_full():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = event_file_writer.EventsWriter(str(folder / "events"))
            begun = events.SessionLog(status=events.SessionLog.START)
            self._write(first, session_log=begun)  # What an interrupted run wrote from here on counts no more.

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers."""
        with self._left_out_where_full():
            for key, value in values.items():
                self._write(step, summary=self._summary.scalar(key, value))
            if self._file is not None and time.monotonic() - self._flushed > FLUSHED:
                self._file.flush()
                self._flushed = time.monotonic()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one image [H, W, 3] uint8."""
        with self._left_out_where_full():
            self._write(step, summary=self._summary.image(name, image, dataformats="HWC"))

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text in Markdown."""
        with self._left_out_where_full():
            self._write(step, summary=self._summary.text(name, text))

    def close(self) -> None:
        """Flushes."""
        with self._left_out_where_full():
            if self._file is not None:
                self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        if self._file is not None:
            self._file.write_event(self._event(wall_time=time.time(), step=step, **content))

    @contextlib.contextmanager
    def _left_out_where_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._file = None
            print(f"{self._folder}: no more events ({error.strerror}); metrics.jsonl has the numbers", flush=True)


def write_parameters(workdir: epath.Path, params: Mapping[str, PyTree]) -> str:
    """Writes the table of all parameters to ``parameters.txt``.

    Args:
        workdir: of the run.
        params: network to its parameters, arrays or their shapes.

    Returns:
        A summary: one line for each top-level module of each network with the number of its parameters, and their sum.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(params)
    }
    table = parameter_overview.get_parameter_overview(leaves, include_stats=False)
    files.write_whole(workdir / "parameters.txt", table + "\n")
    return "\n".join(_part_lines(leaves))


def _part_lines(leaves: Mapping[str, Any]) -> list[str]:
    """Counts by the first two parts of the names, such as ``student/backbone``."""
    counts: dict[str, int] = defaultdict(int)
    for name, leaf in leaves.items():
        counts["/".join(name.split("/")[:2])] += math.prod(leaf.shape)
    counts["all"] = sum(counts.values())
    width = max(len(name) for name in counts)
    return [f"{name:<{width}}  {count:>13,} parameters" for name, count in counts.items()]
