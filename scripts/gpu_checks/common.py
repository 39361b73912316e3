# SPDX-License-Identifier: Apache-2.0
"""What the parts of the GPU check share: rows of results, the time that is left, programs and how they are timed."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """Where results go and how long there is.

    Attributes:
        out: folder of the results.
        work: folder of what the parts hand on to each other.
        deadline: of this part, as ``time.time()``.
        tiny: tiny networks, to see that the check works.
    """

    out: pathlib.Path
    work: pathlib.Path
    deadline: float
    tiny: bool

    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.time()

    def row(self, table: str, **values: Any) -> None:
        """Adds one line to the results and prints it."""
        line = json.dumps({"table": table, **values})
        with (self.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def failed(self, part: str, what: str, why: str) -> None:
        """Adds a line about something that did not work."""
        self.row("failed", part=part, what=what, why=" ".join(why.split())[:300])

    @contextlib.contextmanager
    def attempt(self, part: str, what: str) -> Iterator[None]:
        """An error inside becomes a line of the results, and the work goes on behind it."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed(part, what, f"{type(error).__name__}: {error}")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one step: the median and the quartiles of groups of steps."""

    median: float
    low: float
    high: float
    steps: int

    def milliseconds(self) -> dict[str, float]:
        """As values of a row."""
        names = {"ms": self.median, "ms_low": self.low, "ms_high": self.high}
        return {name: round(1000 * seconds, 2) for name, seconds in names.items()}


def timed(run: Callable[[int], None], seconds: float, groups: int = 7) -> Timing:
    """Times ``run(n)``, which does n steps and returns when all of them are done.

    Args:
        run: the steps.
        seconds: about how long all groups together may take.
        groups: of steps; the median and the quartiles are taken over them.
    """
    run(3)
    began = time.perf_counter()
    run(2)
    once = (time.perf_counter() - began) / 2
    count = max(2, min(50, 2 * round(seconds / groups / once / 2)))  # Even: some methods alternate.
    groups = max(3, min(groups, int(seconds / once / count)))
    found = []
    for _ in range(groups):
        began = time.perf_counter()
        run(count)
        found.append((time.perf_counter() - began) / count)
    low, median, high = statistics.quantiles(found, n=4)
    return Timing(median, low, high, groups * count)


def start_jax(check: Check) -> None:
    """Keeps compiled programs for the parts that come later, and torch out of this process."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # Where it is installed, tensorboardX would import it.
    import jax

    jax.config.update("jax_compilation_cache_dir", str(check.work / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def machine_part(check: Check) -> None:
    """What machine this is, and how fast its matrix product is. Ends the check if there is no GPU."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    if device.platform != "gpu" and not check.tiny:
        print(f"nightjax: error: jax sees no GPU, only {device}; install jax[cuda13], or give --tiny", file=sys.stderr)
        sys.exit(2)
    size = 256 if check.tiny else 8192
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    product = jax.jit(lambda x: jnp.dot(x, matrix) / size**0.5)

    def run(count: int) -> None:
        x = matrix
        for _ in range(count):
            x = product(x)
        x.block_until_ready()

    rate = 2 * size**3 / timed(run, 1.0).median
    driver = ""
    if shutil.which("nvidia-smi") and not check.tiny:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    check.row(
        "machine",
        device=device.device_kind,
        driver=driver,
        cores=cores(),
        python=platform.python_version(),
        jax=jax.__version__,
        memory_gb=round((device.memory_stats() or {}).get("bytes_limit", 0) / 1e9, 1),
        matmul_tflops=round(rate / 1e12, 1),
        matmul=f"{size} cubed, bfloat16",
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
