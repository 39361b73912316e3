# SPDX-License-Identifier: Apache-2.0
"""Times one training step of each config: time to compile, time to run, memory.

    python scripts/bench_step.py
    python scripts/bench_step.py --config=configs/dsr_fpa.py --dtype=bfloat16 --steps=50
    python scripts/bench_step.py --config=configs/dannet.py:data=cityscapes_to_dark_zurich --batch=1 --steps=1
    python scripts/bench_step.py --config=configs/dsr_fpa.py:data=cityscapes_to_dark_zurich --steps=0

``cold`` and ``cached`` are trace, lowering and compilation with an empty and with a filled compile cache; ``init`` is
the first state, its compilation included, with an empty one. The batch is made up and stays on the device, so no input
is timed. Every config runs in a process of its own, since peak memory is that of a process.
"""

import concurrent.futures
import functools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from nightjax import methods
from nightjax.core import cli, hooks, sharding
from nightjax.core import config as configs
from nightjax.run import settings, start
from nightjax.train import compile_step

DEFAULT = (
    "configs/supervised.py:data=nightstreet_tiny",
    "configs/dacs.py:data=nightstreet_tiny",
    "configs/dsr_fpa.py:data=nightstreet_tiny",
)
HEAD = ("config", "type", "M params", "cold s", "cached s", "init s", "step ms", "images/s", "GB")


def made_up_batch(shapes: dict[str, dict[str, jax.ShapeDtypeStruct]]) -> dict[str, dict[str, jax.Array]]:
    """Noise for images, blocks of classes for labels, no motion for flow."""
    rng = np.random.default_rng(0)

    def array(field: str, shape: tuple[int, ...]) -> np.ndarray:
        if field == "label":
            cells = rng.integers(0, 19, (shape[0], -(-shape[1] // 16), -(-shape[2] // 16)))
            return np.kron(cells, np.ones((1, 16, 16), int))[:, : shape[1], : shape[2]]
        if field in ("image", "reference"):
            return rng.integers(0, 256, shape)
        return np.zeros(shape) if field in ("flow", "invalid") else np.ones(shape)

    return {
        name: {field: jax.device_put(array(field, x.shape).astype(x.dtype), x.sharding) for field, x in fields.items()}
        for name, fields in shapes.items()
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result once it is there."""
    began = time.perf_counter()
    result = jax.block_until_ready(work())
    return time.perf_counter() - began, result


def measure(path: str, dtype: str, batch_size: int, accumulate: int, warmup: int, steps: int) -> tuple[str, ...]:
    """One row of the table."""
    changes = {"model.dtype": dtype, "train.batch": batch_size, "train.accumulate": accumulate}
    config = configs.override(settings.load(path), {key: value for key, value in changes.items() if value})
    mesh, method = sharding.make_mesh(), methods.build(config)
    sharding.check_batch_size(config.train.batch, config.train.accumulate, mesh)
    state_shapes, batch_shapes = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        cold, _ = timed(lambda: compile_step(method, state_shapes, batch_shapes, mesh))
        jax.clear_caches()
        cached, step = timed(lambda: compile_step(method, state_shapes, batch_shapes, mesh))
        init, state = timed(lambda: start.first_state(config, method, mesh))
    speed = ("", "")
    if steps:
        batch = made_up_batch(batch_shapes)
        seconds = []
        for _ in range(warmup + steps):
            taken, (state, _) = timed(functools.partial(step, state, batch))
            seconds.append(taken)
        median = statistics.median(seconds[warmup:])
        speed = (f"{1000 * median:.0f}", f"{config.train.batch * len(batch) / median:.1f}")
    parameters = start.count_parameters(state_shapes.params) / 1e6
    times = (f"{cold:.1f}", f"{cached:.1f}", f"{init:.1f}", *speed)
    return path, config.model.dtype, f"{parameters:.2f}", *times, f"{hooks.memory_gb():.2f}"


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "config", list(DEFAULT), "Config file with its arguments; may be repeated.", flag_values=values
    )
    flags.DEFINE_string("dtype", "", "Compute type, instead of the config's.", flag_values=values)
    flags.DEFINE_integer("batch", 0, "Global batch, instead of the config's.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer(
        "accumulate", 0, "Microbatches of a step, instead of the config's.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer("warmup", 2, "Steps before the timed ones.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("steps", 20, "Steps to time; 0 compiles only.", lower_bound=0, flag_values=values)
    cli.parse(values, argv, __doc__)
    width = max(map(len, values.config))

    def show(row: tuple[str, ...]) -> None:
        print(f"{row[0]:{width}}{row[1]:>10}" + "".join(f"{cell:>10}" for cell in row[2:]), flush=True)

    show(HEAD)
    for path in values.config:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
            changes = values.dtype, values.batch, values.accumulate
            show(process.submit(measure, path, *changes, values.warmup, values.steps).result())


if __name__ == "__main__":
    cli.run(main)
