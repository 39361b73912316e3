# SPDX-License-Identifier: Apache-2.0
"""How long a call takes, and how much memory the process has had."""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of equal calls in milliseconds.

    Attributes:
        median: of all.
        high: the value that nine of ten calls stay below.
        calls: how many there were.
    """

    median: float
    high: float
    calls: int


def measure(call: Callable[[], Any], seconds: float = 0.5) -> Timing:
    """Times a call, after two that are not counted: at least five times, at most 200, and for ``seconds`` if it can."""
    times: list[float] = []
    for _ in range(2):
        call()
    while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    median, high = 1000 * np.quantile(times, (0.5, 0.9))
    return Timing(round(float(median), 3), round(float(high), 3), len(times))


def peak_memory() -> int | None:
    """The most bytes that this process has held in main memory; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
