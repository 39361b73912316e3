# SPDX-License-Identifier: Apache-2.0
"""One network's supervised step, which PyTorch's is compared with, and how long the loop waits for its input."""

import concurrent.futures
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from bench_input import record
from gpu_checks import common, programs
from gpu_checks.common import Check
from gpu_checks.network_forms import form_of, optimizer_of

from nightjax import methods
from nightjax.core import hooks, sharding, targets, writers
from nightjax.core.method import segments
from nightjax.data import sources, streams
from nightjax.interop.torch_weights import to_torch
from nightjax.run import settings, start

PATH = "supervised:data=cityscapes_to_dark_zurich,model=deeplab"
TINY = {
    "model.backbone_depths": (1, 1, 1, 1),
    "model.backbone_widths": (4, 4, 8, 8),
    "model.backbone_stem_features": 8,
    "data.streams.source.crop": (64, 96),
}
BATCHES, TINY_BATCHES = (4, 16), (2,)
"""As many crops as the papers' 2 + 2, and four times as many."""

NETWORK = "DeepLab-v2, ResNet-101"

COMPILING = 0.6
"""Share of this part's time after which the first step is timed, though the second may still be compiled."""

RECORDS = 64
"""Records of 2048x1024 that the stream draws from."""

LOOP = 40
"""Steps of the loop whose waiting is measured, after a few that are not."""


def supervised_part(check: Check) -> None:
    """Times the step, writes what `peer` needs, and runs the loop on made-up records."""
    sizes, program = TINY_BATCHES if check.tiny else BATCHES, None
    pool = concurrent.futures.ThreadPoolExecutor(len(sizes) + 1)
    tiny = TINY if check.tiny else {}
    exact = pool.submit(exact_logits, {"train.batch": 2, "model.dtype": "float32", **tiny})
    jobs = {size: pool.submit(prepared, {"train.batch": size, **tiny}) for size in sizes}
    concurrent.futures.wait(jobs.values(), COMPILING * check.left())
    for size, job in jobs.items():
        with check.attempt("supervised", f"batch {size}"):
            program = job.result(max(check.left(), 1.0))
            batch = program.batch()
            timing = program.time(batch, 4.0)
            check.row(
                "peer",
                framework=f"nightjax, jax {jax.__version__}",
                batch=size,
                **timing.milliseconds(),
                images_per_s=round(program.images / timing.median, 1),
                **program.speed(timing),
                memory_gb=program.memory()["total_gb"],
                compile_s=round(program.compile_seconds, 1),
            )
            hand_on(check, program, batch, exact.result(max(check.left(), 1.0)))
    if program is None:
        return
    for workers in sorted({program.config.data.workers, max(common.cores() - 2, 1)}):
        with check.attempt("input", f"{workers} workers"):
            input_wait(check, program, workers)


def prepared(changes: Mapping[str, Any]) -> programs.Program:
    """The compiled step with a first state."""
    program = programs.prepare(PATH, changes)
    program.begin()
    return program


def exact_logits(changes: Mapping[str, Any]) -> jax.stages.Compiled:
    """``(variables, images) -> logits`` of the network in float32 without TF32, compiled."""
    config = settings.override(settings.load(PATH), changes)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    state, batch = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    variables = {"params": state.params["student"], "batch_stats": state.batch_stats["student"]}
    with jax.default_matmul_precision("highest"):
        predict = targets.written_for(targets.of(mesh.devices.flat), segments(method).predict)
        return jax.jit(predict).lower(variables, batch["source"]["image"]).compile()


def hand_on(check: Check, program: programs.Program, batch: Any, exact: jax.stages.Compiled) -> None:
    """Writes ``peer-BATCH.npz`` and ``.json``: weights, batch, logits in float32, and the scalars of a step."""
    state, config = program.state, program.config
    variables = {"params": state.params["student"], "batch_stats": state.batch_stats["student"]}
    first = jax.device_put(batch["source"]["image"][:2], batch["source"]["image"].sharding)
    logits = exact(variables, first)
    weights = to_torch(jax.device_get(variables), counters=True)
    image = np.asarray(program.method.network.input(batch["source"]["image"]))
    scalars = program.run(batch, 1)
    arrays = {f"weights/{name}": value for name, value in weights.items()}
    label = np.asarray(batch["source"]["label"])
    np.savez(
        check.work / f"peer-{program.batch_size}.npz", image=image, label=label, logits=np.asarray(logits), **arrays
    )
    facts = {
        "form": form_of(config),
        "classes": logits.shape[-1],
        "parameters": start.count_parameters(variables["params"]),
        "optim": optimizer_of(config),
        "scalars": {name: float(np.asarray(value)) for name, value in scalars.items()},
        "flops": program.flops,
        "peak": program.peak(),
        "dtype": config.model.dtype,
    }
    (check.work / f"peer-{program.batch_size}.json").write_text(json.dumps(facts))


def input_wait(check: Check, program: programs.Program, workers: int) -> None:
    """The training loop's own input, clock and log on records of 2048x1024, as Cityscapes has them."""
    config, name = program.config, program.method.domains[0]
    spec = start.stream_specs(config, program.method)[name]
    source = sources.ListSource([record((1024, 2048), ".png", False)] * RECORDS)
    options = {
        "batch_size": program.batch_size,
        "seed": config.seed,
        "workers": workers,
        "threads": config.data.threads,
    }
    stream = streams.make_stream(source, spec, **options)

    def put(batch):
        index = {domain: fields.pop("index") for domain, fields in batch.items()}
        return sharding.put_batch(batch, program.mesh), index

    batches, clock = streams.prefetch(streams.Streams({name: stream}), put), hooks.Clock()
    last = 5 + (4 if check.tiny else LOOP)
    log = hooks.ScalarLog(writers.NoWriter(), clock, 0, last, program.images, last, lambda index: {})
    elapsed = waited = 0.0
    try:
        for step in range(last):
            if step == 5:
                log.settle()
                elapsed, waited = clock.elapsed(), clock.waited()
            with clock.waiting():
                batch, index = next(batches)
            program.state, scalars = program.step(program.state, batch)
            log.push(step + 1, scalars, index)
        log.settle()
        elapsed, waited = clock.elapsed() - elapsed, clock.waited() - waited
    finally:
        batches.close()
    check.row(
        "input",
        network=NETWORK,
        batch=program.batch_size,
        workers=workers,
        threads=config.data.threads,
        cores=common.cores(),
        records_mb=round(len(source[0]["image"]) / 1e6, 2),
        images_per_s=round((last - 5) * program.images / elapsed, 1),
        wait=round(waited / elapsed, 3),
    )
