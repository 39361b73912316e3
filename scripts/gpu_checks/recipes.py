# SPDX-License-Identifier: Apache-2.0
"""Step time, images a second, MFU, memory and compile time of the papers' recipes."""

import concurrent.futures
import itertools
import time
from typing import Any

import jax
from gpu_checks import programs
from gpu_checks.common import Check

PAPER = "data=cityscapes_to_dark_zurich"
RECIPES = {
    "DSR+FPA, ResNet-101 DeepLab-v2": (f"dsr_fpa:{PAPER},model=deeplab", {}),
    "DSR+FPA, MiT-B5 DAFormer": (f"dsr_fpa:{PAPER},model=daformer", {}),
    "DSR+FPA, MiT-B5 HRDA": (f"dsr_fpa:{PAPER},model=hrda", {}),
}
"""Name to config and changes, all at the papers' 2 + 2 crops in bfloat16."""

TINY_RECIPES = {"DSR+FPA, tiny": ("dsr_fpa:data=nightstreet_tiny,model=tiny", {"train.batch": 2})}

SECONDS = 6.0
"""For timing one program."""

FULL = 0.9
"""Share of the memory that the largest batch may take by the compiler's count."""

AGAIN = 60.0
"""Seconds that must be left to try half of a batch that did not fit."""

COMPILING = 0.55
"""Share of this part's time after which the programs that are ready are timed, though others are still compiled."""


def recipes_part(check: Check) -> None:
    """Times every recipe at the papers' batch, and then at the largest one that fits."""
    recipes = TINY_RECIPES if check.tiny else RECIPES
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    pool, larger = concurrent.futures.ThreadPoolExecutor(len(RECIPES)), {}
    names = {pool.submit(compiled, check, name, *recipe, begin=True): name for name, recipe in recipes.items()}
    ready, rest = concurrent.futures.wait(names, COMPILING * check.left())
    in_order = sorted(ready, key=list(names).index)
    for future in itertools.chain(in_order, concurrent.futures.as_completed(rest, max(check.left(), 1.0))):
        with check.attempt("recipes", names[future]):
            program = future.result()
            measured(check, names[future], program, beside=sum(not other.done() for other in names))
            batch = largest(program, limit) if limit else 2 * program.batch_size
            if batch > program.batch_size:
                larger[names[future]] = (batch, program.state)
            program.state = None
    jobs = {name: pool.submit(compiled, check, name, *at_batch(recipes[name], larger[name][0])) for name in larger}
    for name, (batch, former) in larger.items():
        job, given = jobs[name], former
        while batch > 1:
            with check.attempt("recipes", f"{name}, batch {batch}"):
                program = job.result(max(check.left(), 1.0))
                measured(check, name, program, sum(not other.done() for other in jobs.values()), given)
                break
            batch, given = batch // 2, None  # Too large after all: what was given is gone, and half as much is tried.
            if check.left() < AGAIN:
                break
            job = pool.submit(compiled, check, name, *at_batch(recipes[name], batch))


def at_batch(recipe: tuple[str, dict[str, Any]], batch: int) -> tuple[str, dict[str, Any]]:
    """A recipe at another batch size."""
    path, changes = recipe
    return path, {**changes, "train.batch": batch}


def compiled(check: Check, name: str, path: str, changes: dict[str, Any], begin: bool = False) -> programs.Program:
    """Compiles a recipe, says so, and if asked makes its first state."""
    program = programs.prepare(path, changes)
    analysis = program.step.cost_analysis() or {}
    check.row(
        "compiled",
        recipe=name,
        batch=program.batch_size,
        compile_s=round(program.compile_seconds, 1),
        tflop=round(program.flops / 1e12, 3),
        tflop_xla=round(float(analysis.get("flops", 0.0)) / 1e12, 3),
        **program.memory(),
    )
    if begin:
        program.begin()
    return program


def measured(check: Check, name: str, program: programs.Program, beside: int, former: Any = None) -> None:
    """Times a program in the phase of the run in which every part of the method works."""
    if program.state is None:
        program.begin(former)
    alignment = program.config.method.get("alignment")
    if alignment:
        program.skip_to(alignment.start_step + 2)
    batch = program.batch()
    began = time.perf_counter()
    program.run(batch, 1)
    print(f"{name}, batch {program.batch_size}: first step after {time.perf_counter() - began:.1f} s", flush=True)
    timing = program.time(batch, min(SECONDS, max(check.left() / 4, 0.5)))
    bound = None
    with check.attempt("recipes", f"{name}, batch {program.batch_size}: bound"):
        bound = program.bound_ms()
    crop = program.config.data.streams[program.method.domains[0]].crop
    check.row(
        "recipe",
        recipe=name,
        batch=program.batch_size,
        images=program.images,
        crop="x".join(map(str, crop)),
        dtype=program.config.model.dtype,
        **timing.milliseconds(),
        steps=timing.steps,
        images_per_s=round(program.images / timing.median, 1),
        tflop=round(program.flops / 1e12, 3),
        **program.speed(timing),
        bound_ms=bound,
        **program.memory(),
        peak_gb=round((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9, 2),
        compile_s=round(program.compile_seconds, 1),
        first_state_s=round(program.begin_seconds, 1) if former is None else None,
        compiling_beside=beside,
        options=program.options,
    )


def largest(program: programs.Program, limit: int) -> int:
    """The largest batch, a power of two (64 at most) times this one, that should fit in ``limit`` bytes."""
    sizes = program.memory()
    batch, base = program.batch_size, program.batch_size
    while batch < 64 * base and sizes["arguments_gb"] + sizes["temporary_gb"] * 2 * batch / base <= FULL * limit / 1e9:
        batch *= 2
    return batch
