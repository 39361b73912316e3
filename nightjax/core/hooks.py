# SPDX-License-Identifier: Apache-2.0
"""Run instrumentation: clock, scalar log, profiler, stop signals, and word to the experiment platform."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from clu import platform
from etils import epath
from jax.experimental import multihost_utils

from nightjax.core.errors import NotFinite, UserError
from nightjax.core.types import Weighted
from nightjax.core.writers import Writer


class Clock:
    """Time spent stepping, and how much of it was spent waiting for input.

    Evaluating and saving do not count. The state is saved with the run, so the clock survives restarts.
    """

    def __init__(self):
        self._before, self._waited = 0.0, 0.0
        self._since: float | None = time.perf_counter()

    def state(self) -> list[float]:
        """Seconds stepped and waited, for the checkpoint."""
        return [self.elapsed(), self._waited]

    def restore(self, state: Any) -> None:
        """Continues from a saved state.

        Raises:
            UserError: it is none.
        """
        numbers = state if isinstance(state, list) else []
        if len(numbers) != 2 or not all(isinstance(one, int | float) and 0 <= one < math.inf for one in numbers):
            raise UserError(f"the clock of the run is damaged: {state!r} is no [seconds stepped, seconds waited]")
        self._before, self._waited = numbers
        self._since = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds stepped."""
        return self._before + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def waited(self) -> float:
        """Seconds waited for input."""
        return self._waited

    @contextlib.contextmanager
    def paused(self):
        """Time spent inside does not count."""
        self._before, self._since = self.elapsed(), None
        try:
            yield
        finally:
            self._since = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self):
        """Time spent inside counts as waiting for input."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began


class ScalarLog:
    """Scalars of the steps, fetched one step late so that the host never waits for the step it has just started.

    The scalars of every step must be finite. Their means since the last log step are written, printed and noted at the
    experiment platform. A scalar may come with a weight, as [value, weight]; it is left out where its weights are 0.

    Args:
        writer: where the numbers go.
        clock: of the run.
        start, steps: first and last step.
        images_per_step: over all domains.
        every: steps from one line to the next.
        name_records: turns the record positions of a batch into names, for errors.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        start: int,
        steps: int,
        images_per_step: int,
        every: int,
        name_records: Callable[[Any], Mapping[str, list[str]]],
    ):
        self._writer, self._clock, self._steps = writer, clock, steps
        self._images, self._every, self._name_records = images_per_step, every, name_records
        self._last = (start, clock.elapsed(), clock.waited())
        self._window, self._pending = [], None

    def push(self, step: int, scalars: Mapping[str, jax.Array], index: Any) -> None:
        """Takes the scalars of a step that has just started and settles those of the step before."""
        self.settle()
        self._pending = (step, scalars, index)

    def settle(self) -> None:
        """Fetches the pending scalars.

        Raises:
            NotFinite: a scalar is not finite; names the step, the terms and the records of the batch.
        """
        if self._pending is None:
            return
        (step, scalars, index), self._pending = self._pending, None
        values = {name: _weighted(value) for name, value in jax.device_get(dict(scalars)).items()}
        bad = [name for name, pair in values.items() if not np.isfinite(pair).all()]
        if bad:
            records = "; ".join(f"{domain}: {', '.join(ids)}" for domain, ids in self._name_records(index).items())
            raise NotFinite(f"step {step}: {', '.join(bad)} not finite. Records of the batch: {records}")
        self._window.append(values)
        if step % self._every == 0 or step == self._steps:
            self._report(step)

    def _report(self, step: int) -> None:
        means = {name: _mean([values[name] for values in self._window]) for name in self._window[-1]}
        means = {name: mean for name, mean in means.items() if mean is not None}
        self._window = []
        step0, elapsed0, waited0 = self._last
        elapsed, waited = self._clock.elapsed(), self._clock.waited()
        self._last = (step, elapsed, waited)
        seconds = max(elapsed - elapsed0, 1e-9)
        rate = (step - step0) / seconds
        speed = {
            "images_per_second": rate * self._images,
            "images_per_second_per_device": rate * self._images / jax.device_count(),
            "input_wait_share": (waited - waited0) / seconds,
            "memory_gb": memory_gb(),
            "seconds": elapsed,
        }
        self._writer.scalars(step, means | speed)
        losses = "  ".join(f"{name.removeprefix('loss_')} {v:.4g}" for name, v in means.items() if "loss" in name)
        left = int((self._steps - step) / max(rate, 1e-9))
        line = (
            f"[{step}/{self._steps}] {losses} | {speed['images_per_second']:.1f} img/s  "
            f"wait {100 * speed['input_wait_share']:.1f}%  mem {speed['memory_gb']:.1f} GB  "
            f"left {left // 60}:{left % 60:02d}"
        )
        print(line, flush=True)
        if jax.process_index() == 0:
            platform.work_unit().set_notes(line)


def _weighted(value: Any) -> Weighted:
    """A logged scalar as numbers on the host."""
    value = value if isinstance(value, Weighted) else Weighted(value, 1.0)
    return Weighted(float(value.value), float(value.weight))


def _mean(values: Sequence[Weighted]) -> float | None:
    """Mean by weight; None if nothing weighs."""
    total = sum(pair.weight for pair in values)
    return sum(pair.value * pair.weight for pair in values) / total if total else None


def memory_gb() -> float:
    """Peak memory in GB: of the fullest local accelerator, or of this process on CPU (0 where that is unknown)."""
    stats = [d.memory_stats() for d in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    if peaks:
        return max(peaks) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def announce(workdir: epath.PathLike) -> None:
    """Tells the experiment platform which process this is and where the run is kept.

    The platform is `clu.platform`'s: outside Google it writes to absl's log at level INFO and does nothing else.
    """
    unit = platform.work_unit()
    unit.set_task_status(f"process {jax.process_index()} of {jax.process_count()}")
    if jax.process_index() == 0:
        unit.create_artifact(platform.ArtifactType.DIRECTORY, str(workdir), "workdir")


class Profile:
    """Traces some steps after the first ten into ``workdir/profile``, for TensorBoard or Perfetto.

    Args:
        workdir: of the run.
        start: first step of this process.
        steps: how many; 0 for none.
    """

    def __init__(self, workdir: epath.Path, start: int, steps: int):
        self._folder, self._first, self._steps = workdir / "profile", start + 10, steps
        self._running = False

    def __call__(self, step: int) -> None:
        """Starts or ends the trace where it is this step's turn."""
        if self._steps and step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and step == self._first + self._steps:
            self.close()

    def close(self) -> None:
        """Ends a running trace."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


class StopSignal:
    """Turns true after SIGTERM or SIGINT, or, in a job of several processes, after a preemption notice to any of them.

    ``by_hand`` says that it was SIGINT, Ctrl-C.

    With several processes JAX's coordination service listens for SIGTERM and agrees on the step at which all of them
    stop, so no handler is installed here.
    """

    def __init__(self):
        self._asked = False
        self.by_hand = False
        self._before = {}
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}

    def _ask(self, number, _frame) -> None:
        self._asked, self.by_hand = True, number == signal.SIGINT
        signal.signal(number, self._before[number])  # A second signal acts at once.

    def __call__(self, step: int) -> bool:
        """Whether to save and stop at this step; all processes get the same answer."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def close(self) -> None:
        """Restores the signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
