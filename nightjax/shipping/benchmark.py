# SPDX-License-Identifier: Apache-2.0
"""Latency, throughput and memory of a network in JAX, and of an exported one in its runtime."""

import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np

from nightjax.core import flops, targets
from nightjax.core.types import Size
from nightjax.shipping.folder import Exported
from nightjax.shipping.network import Network
from nightjax.shipping.timing import Timing, measure, peak_memory


@dataclasses.dataclass(frozen=True)
class Result:
    """One size and batch.

    Attributes:
        size: (H, W) of the images.
        batch: images in a call.
        timing: of a call.
        gflop: multiplications and additions of one image in billions, see `core.flops`; None for an export, which does
            not say.
        program_memory: bytes that the program needs beside its weights and images, as the compiler says; None for an
            export.
        peak_memory: the most bytes that the process has held so far; None where the system does not say.
    """

    size: Size
    batch: int
    timing: Timing
    gflop: float | None
    program_memory: int | None
    peak_memory: int | None

    @property
    def images_per_second(self) -> float:
        """Throughput."""
        return 1000 * self.batch / self.timing.median

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self) | {"images_per_second": round(self.images_per_second, 2)}


def of_network(network: Network, seconds: float) -> Result:
    """A network on this machine's first device; from images on it to labels on it.

    Args:
        network: with a fixed batch.
        seconds: to time for.
    """
    image = jax.device_put(_images(network.image().shape, network.image().dtype))
    variables = jax.device_put(network.variables)
    program = jax.jit(targets.written_for(targets.of(jax.local_devices()), network))
    compiled = program.lower(variables, image).compile()
    timing = measure(lambda: jax.block_until_ready(compiled(variables, image)), seconds)
    memory, batch = compiled.memory_analysis(), image.shape[0]
    counted = flops.count(network.logits, variables, image)
    return Result(
        network.size,
        batch,
        timing,
        round(counted / batch / 1e9, 4),
        memory.temp_size_in_bytes if memory else None,
        _peak(),
    )


def of_export(exported: Exported, batch: int, seconds: float) -> Result:
    """An exported network in its runtime; from images in main memory to labels in main memory."""
    layout = exported.about["layout"]
    images = _images(exported.shape(batch), np.dtype(np.uint8 if layout == "nhwc" else np.float32))
    timing = measure(lambda: exported(images), seconds)
    height, width = exported.about["size"]
    return Result((height, width), len(images), timing, None, None, _peak())


def parameters(variables: Any) -> int:
    """Trained numbers of a network; the running statistics of norms are none."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def size_of(folder: pathlib.Path) -> int:
    """Bytes of an export folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _images(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def _peak() -> int | None:
    """The most that the device has held where it counts that, as GPUs do, else the process."""
    counted = jax.local_devices()[0].memory_stats() or {}
    return counted.get("peak_bytes_in_use") or peak_memory()
