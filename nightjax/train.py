"""The one training loop.

Its order never changes: evaluate, save (state with data position), next batch, step, log. That order makes a saved
position agree with the saved weights, so that a continued run equals an uninterrupted one bit for bit.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
from etils import epath

from nightjax import methods, run
from nightjax.core import checkpoint, hooks, sharding, writers
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.method import Method
from nightjax.core.state import TrainState
from nightjax.core.types import Batch
from nightjax.data import sources, streams, transforms
from nightjax.evaluate import Evaluator
from nightjax.report.page import read_baseline, write_report
from nightjax.report.panels import write_panels


def train(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
    """Trains to the last step, going on from whatever the workdir holds, and evaluates.

    Args:
        config: what a config file's ``get_config`` returns.
        workdir: any path ``epath`` knows; made if missing.

    Returns:
        Evaluation results by set, as `Evaluator` gives them; empty when a signal ended the run early.

    Raises:
        UserError: anything the user can put right; the message says what, where and how.
    """
    began = time.perf_counter()
    workdir, config = epath.Path(workdir), methods.with_defaults(config)
    steps, batch_size = config.train.steps, config.train.batch
    _check_numbers(config)
    if config.log.baseline:
        read_baseline(config.log.baseline)
    mesh = sharding.make_mesh(_devices(config.train.devices))
    sharding.check_batch_size(batch_size, config.train.accumulate, mesh)
    method = methods.build(config)
    abstract = run.abstract_state(config, method, mesh)
    run.check_network(abstract, config.eval.which)
    _check_workdir(workdir, config)
    readers, batches = _open_streams(config, method, mesh)
    evaluator = Evaluator(config, method, mesh, workdir)
    _claim(workdir, config)

    saver = checkpoint.Checkpointer(workdir, keep=config.checkpoint.keep, best=config.checkpoint.best)
    start = saver.latest() or 0
    clock = hooks.Clock()
    if start:
        state, host = saver.restore(start, abstract)
        batches.set_state(host["streams"])
        clock.restore(host["clock"])
        print(f"continuing {workdir} from step {start}", flush=True)
    else:
        state = run.first_state(config, method, mesh)
    parameters = run.count_parameters(abstract.params)
    print(f"{config.method.name}: {parameters / 1e6:.2f} M parameters, {steps} steps, {mesh.devices.size} device(s)")

    compiling = time.perf_counter()
    with _missing_field_explained(config):
        step_fn = compile_step(method, abstract, run.abstract_batch(config, method, mesh), mesh)
    print(f"step compiled in {time.perf_counter() - compiling:.1f} s", flush=True)
    panels_fn = jax.jit(method.panels)
    writer = writers.MetricWriter(workdir, start) if jax.process_index() == 0 else writers.NoWriter()
    name_records = functools.partial(_record_ids, readers)
    log = hooks.ScalarLog(writer, clock, start, steps, batch_size * len(readers), config.log.every, name_records)
    profile = hooks.Profile(workdir, start, config.log.profile_steps)
    stop = hooks.StopSignal()
    results, batch = {}, None
    try:
        for step in range(start, steps + 1):
            fresh, last = step > start, step == steps
            stopping = fresh and stop(step)
            metrics = {}
            if last or (fresh and _due(step, config.eval.every)):
                with clock.paused():
                    log.settle()
                    results = evaluator(method.variables(state, config.eval.which), step, writer)
                    metrics = {name: result["miou"][result["headline"]] for name, result in results.items()}
                    if batch is not None:
                        write_panels(panels_fn(state, batch), workdir, step, writer)
            if fresh and (last or stopping or _due(step, config.checkpoint.every)):
                with clock.paused():
                    log.settle()
                    saver.save(step, state, {"streams": batches.get_state(), "clock": clock.state()}, metrics)
            if last or stopping:
                break
            profile(step)
            with clock.waiting():
                batch, index = next(batches)
            state, scalars = step_fn(state, batch)
            log.push(step + 1, scalars, index)
            if step == start:
                print(f"first step after {time.perf_counter() - began:.1f} s", flush=True)
    finally:
        stop.close()
        profile.close()
        saver.close()
        batches.close()
        writer.close()
    if stopping and not last:
        print(f"stopped at step {step}; the same command continues from there", flush=True)
        return {}
    if jax.process_index() == 0:
        write_report(workdir, baseline=config.log.baseline or None)
    print(
        f"done in {time.perf_counter() - began:.0f} s, peak memory {hooks.memory_gb():.1f} GB; see "
        f"{workdir}/report.html"
    )
    return results


def compile_step(method: Method, state: TrainState, batch: Batch, mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
    """The one compiled program of a run: ``(state, batch) -> (state, scalars)``, the state donated.

    Args:
        method: whose ``train_step`` it is.
        state, batch: arrays or their shapes; any other shape is an error later, never a second program.
        mesh: the devices.
    """
    shardings = sharding.state_sharding(mesh, state)
    # At a CPU's usual level 3 it takes longer to compile, and the two programs measured (supervised, dsr_fpa) ran no
    # faster.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    step = jax.jit(
        method.train_step,
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
        compiler_options=options,
    )
    return step.lower(state, batch).compile()


LEAST = {
    "train.steps": 1,
    "train.batch": 1,
    "train.accumulate": 1,
    "train.devices": 0,
    "data.workers": 0,
    "data.threads": 1,
    "eval.every": 0,
    "checkpoint.every": 0,
    "checkpoint.keep": 1,
    "log.every": 1,
}
"""Smallest value of each number that drives the loop."""


def _check_numbers(config: ml_collections.ConfigDict) -> None:
    for key, least in LEAST.items():
        section, name = key.split(".")
        if config[section][name] < least:
            raise UserError(f"{key}={config[section][name]} must be {least} or more")
    if config.checkpoint.best:
        configs.choose(config.eval.sets, config.checkpoint.best, "checkpoint.best")
    for name, section in config.eval.sets.items():
        if section.get("batch", 1) < 1:
            raise UserError(f"eval.sets.{name}.batch={section.batch} must be 1 or more")
    starts = {"optim.warmup": config.optim.get("warmup", 0)}
    if config.method.get("fpa"):
        starts["method.fpa_start_step"] = config.method.fpa_start_step
    for key, start in starts.items():
        if start >= config.train.steps:
            raise UserError(
                f"{key}={start} is not within the run's {config.train.steps} steps; choose the length by the config's argument, "
                "--config=FILE.py:steps=N, which fits the rest to it, or set both"
            )


@contextlib.contextmanager
def _missing_field_explained(config: ml_collections.ConfigDict) -> Iterator[None]:
    """A method that reads a field which its stream does not deliver fails while it is traced."""
    try:
        yield
    except KeyError as error:
        if error.args[0] not in transforms.FEATURES:
            raise
        raise UserError(
            f"method {config.method.name!r} with these settings reads the field {error.args[0]!r}, which no stream in "
            "data.streams delivers for it: add it to the stream's fields, or switch off what needs it"
        ) from error


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _devices(limit: int) -> list[jax.Device]:
    devices = jax.devices()
    if limit > len(devices):
        raise UserError(f"train.devices={limit}, but JAX sees {len(devices)} device(s); lower it or use 0 for all")
    return devices[:limit] if limit else devices


def _check_workdir(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a workdir that holds another config's run or cannot be one."""
    if (workdir / "config.json").exists():
        configs.check_same_run(methods.with_defaults(run.read_config(workdir)), config, workdir)
    elif jax.process_index() == 0:
        with _writing_to(workdir):
            workdir.mkdir(parents=True, exist_ok=True)


def _claim(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Makes the workdir this config's; all processes wait until it is.

    Comes after all checks, so that a refused config leaves the folder free. It is also where processes that started
    apart meet, before the first program that needs them all.
    """
    path = workdir / "config.json"
    if jax.process_index() == 0 and not path.exists():
        with _writing_to(workdir):
            draft = workdir / "config.json.tmp"
            draft.write_text(configs.to_json(config))
            draft.replace(path)
    sharding.wait_for_all("claim")


@contextlib.contextmanager
def _writing_to(workdir: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir} ({error.strerror}); choose another folder") from error


def _open_streams(config: ml_collections.ConfigDict, method: Method, mesh: jax.sharding.Mesh):
    """The sources by domain, and an iterator over (device batch, host record positions)."""
    data, readers, iterators = config.data, {}, {}
    for name, spec in run.stream_specs(config, method).items():
        readers[name] = sources.open_source(spec.dataset, spec.split, data_dir=data.dir, manual_dir=data.manual_dir)
        iterators[name] = streams.make_stream(
            readers[name],
            spec,
            batch_size=config.train.batch,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=data.workers,
            threads=data.threads,
        )
        transforms.decode(readers[name][0], spec.fields)  # What no record has is an error before anything compiles.

    def put(batch):
        index = {name: domain.pop("index") for name, domain in batch.items()}
        return sharding.put_batch(batch, mesh), index

    return readers, streams.prefetch(streams.Streams(iterators), put)


def _record_ids(readers: dict[str, sources.Source], index: dict[str, Any]) -> dict[str, list[str]]:
    return {name: streams.record_ids(readers[name], positions) for name, positions in index.items()}
