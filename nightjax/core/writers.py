"""Where a run's numbers and images go: one JSON line a step, TensorBoard events, and the table of its parameters."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from clu import parameter_overview
from etils import epath

from nightjax.core import metric_lines
from nightjax.core.types import PyTree


class Writer(Protocol):
    """What the loop writes to."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of one step."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one image [H, W, 3] uint8."""

    def close(self) -> None:
        """Flushes."""


class NoWriter:
    """Writes nothing; for every process but the first."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Writer`."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """See `Writer`."""

    def close(self) -> None:
        """See `Writer`."""


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
            import tensorboardX  # It imports torch where that is installed, which takes seconds.

            self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line."""
        record = {"step": step} | {k: float(v) for k, v in values.items()}
        self._records.append(record)
        if self._local:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(metric_lines.to_line(record))
        else:
            metric_lines.replace(self._path, self._records)
        if self._events:
            for key, value in values.items():
                self._events.add_scalar(key, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds one image [H, W, 3] uint8 to the events."""
        if self._events:
            self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes the events."""
        if self._events:
            self._events.close()


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
    (workdir / "parameters.txt").write_text(table + "\n")
    return "\n".join(_part_lines(leaves))


def _part_lines(leaves: Mapping[str, Any]) -> list[str]:
    """Counts by the first two parts of the names, such as ``student/backbone``."""
    counts: dict[str, int] = defaultdict(int)
    for name, leaf in leaves.items():
        counts["/".join(name.split("/")[:2])] += math.prod(leaf.shape)
    counts["all"] = sum(counts.values())
    width = max(len(name) for name in counts)
    return [f"{name:<{width}}  {count:>13,} parameters" for name, count in counts.items()]
