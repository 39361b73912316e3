# SPDX-License-Identifier: Apache-2.0
"""A training step of a config, compiled as a run compiles it, with a first state and a made-up batch."""

import dataclasses
import itertools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from bench_step import made_up_batch
from gpu_checks import common

from nightjax import methods
from nightjax.core import flops, hlo, sharding
from nightjax.core.method import Trainable
from nightjax.core.state import TrainState
from nightjax.run import settings, start
from nightjax.train import compile_step
from nightjax.zoo.machines import MACHINES, Machine

WITHOUT_TRITON = {"xla_gpu_enable_triton_gemm": False}
"""Options of the compiler for a program that it gives up on: products by cuBLAS alone."""


@dataclasses.dataclass
class Program:
    """One compiled step.

    Attributes:
        config, method, mesh: of the run.
        step: ``(state, batch) -> (state, scalars)``; the state is donated.
        state: to go on from, or None until `begin`.
        compile_seconds: trace, lowering and compilation.
        flops: of one step, see `nightjax.core.flops`.
        options: of the compiler, where the usual ones did not do.
        begin_seconds: what making the state took.
    """

    config: ml_collections.ConfigDict
    method: Trainable
    mesh: jax.sharding.Mesh
    step: jax.stages.Compiled
    compile_seconds: float
    flops: float
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: TrainState | None = None
    begin_seconds: float = 0.0

    @property
    def batch_size(self) -> int:
        """Examples of each domain."""
        return self.config.train.batch

    @property
    def images(self) -> int:
        """Images a step, over all domains."""
        return self.batch_size * len(self.method.domains)

    def batch(self) -> Any:
        """Made-up examples on the device."""
        return made_up_batch(start.abstract_batch(self.config, self.method, self.mesh))

    def memory(self) -> dict[str, float]:
        """GB by the compiler: what the step gets, what it makes beside that, and both."""
        sizes = self.step.memory_analysis()
        given = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        return {
            "arguments_gb": round(given / 1e9, 2),
            "temporary_gb": round(sizes.temp_size_in_bytes / 1e9, 2),
            "total_gb": round((given + sizes.temp_size_in_bytes) / 1e9, 2),
        }

    def speed(self, timing: common.Timing) -> dict[str, float | None]:
        """TFLOP/s and MFU, the latter where the machine's figures are known."""
        rate, peak = self.flops / timing.median, self.peak()
        return {"tflops": round(rate / 1e12, 1), "mfu": round(rate / peak, 3) if peak else None}

    def peak(self) -> float:
        """FLOP/s of this device in the network's type; 0 if unknown."""
        return getattr(machine(jax.devices()[0].device_kind), self.config.model.dtype, 0.0)

    def bound_ms(self) -> float | None:
        """What `nightjax plan` gives as the bound of the step's time; None if the machine's figures are unknown."""
        known = machine(jax.devices()[0].device_kind)
        if known is None or not self.peak():
            return None
        moved = hlo.Program(self.step.as_text() or "").moved()
        return round(1000 * max(self.flops / self.peak(), moved / known.bandwidth), 2)

    def begin(self, former: TrainState | None = None) -> None:
        """Makes the state.

        Args:
            former: a state of the same method at another batch size, whose arrays are taken over; what is kept by
                example begins empty.
        """
        began = time.perf_counter()
        if former is None:
            self.state = start.first_state(self.config, self.method, self.mesh)
        else:
            shapes = start.abstract_state(self.config, self.method, self.mesh)
            fit = lambda x, s: x if x.shape == s.shape else jnp.zeros(s.shape, s.dtype, device=s.sharding)
            self.state = jax.tree.map(fit, former, shapes)
        jax.block_until_ready(self.state)
        self.begin_seconds = time.perf_counter() - began

    def skip_to(self, number: int) -> None:
        """Says that so many steps are done."""
        step = jax.device_put(jnp.int32(number), self.state.step.sharding)
        self.state = self.state.replace(step=step)

    def run(self, batch: Any, count: int) -> dict[str, Any]:
        """Does some steps and waits for them; the last one's scalars."""
        scalars = {}
        for _ in range(count):
            self.state, scalars = self.step(self.state, batch)
        return jax.block_until_ready(scalars)

    def time(self, batch: Any, seconds: float) -> common.Timing:
        """Times the step."""
        return common.timed(lambda count: self.run(batch, count) and None, seconds)


def prepare(path: str, changes: Mapping[str, Any]) -> Program:
    """Compiles the step of a config with some keys replaced."""
    config = settings.override(settings.load(path), changes)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    state, batch = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    began, options = time.perf_counter(), {}
    try:
        step = compile_step(method, state, batch, mesh)
    except jax.errors.JaxRuntimeError as error:
        if "INTERNAL" not in str(error) or mesh.devices.flat[0].platform != "gpu":
            raise
        print(f"{path}: {' '.join(str(error).split())[:300]}; once more with {WITHOUT_TRITON}", flush=True)
        options = WITHOUT_TRITON
        step = compile_step(method, state, batch, mesh, options)
    seconds = time.perf_counter() - began
    operations = flops.count(method.train_step, state, batch)
    return Program(config, method, mesh, step, seconds, operations, options)


def machine(device_kind: str) -> Machine | None:
    """The entry of `MACHINES` for a device as jax names it, or None."""
    words = device_kind.upper().replace("-", " ").split()
    words += [first + second for first, second in itertools.pairwise(words)]
    return next((known for name, known in MACHINES.items() if name.partition("-")[0].upper() in words), None)
