# SPDX-License-Identifier: Apache-2.0
"""The one training loop.

Its order never changes: evaluate, save (state with data position), next batch, step, log. That order makes a saved
position agree with the saved weights, so that a continued run equals an uninterrupted one bit for bit.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax
import ml_collections
from etils import epath

from nightjax import methods
from nightjax.core import checkpoint, class_section, files, hooks, sharding, targets, writers
from nightjax.core.errors import Interrupted, NotFinite, UserError
from nightjax.core.help import format_config
from nightjax.core.method import Trainable
from nightjax.core.partition import BASE
from nightjax.core.state import TrainState
from nightjax.core.types import Batch
from nightjax.data import sources, streams, transforms
from nightjax.evaluator import Evaluator
from nightjax.report.page import read_baseline, write_report
from nightjax.report.visualizations import write_evaluated, write_visualizations
from nightjax.run import base, class_sets, loaded, memory, moved, own_data, references, settings, start
from nightjax.run import workdir as folder


def train(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, *, extend: bool = False, last_good: bool = False
) -> dict[str, Any]:
    """Trains to the last step, going on from whatever the workdir holds, and evaluates.

    Args:
        config: what a config file's ``get_config`` returns.
        workdir: any path ``epath`` knows; made if missing.
        extend: go on with another number of steps or other rates than the run began with, see `same_run.EXTENDABLE`.
            Its state and the position in its data stay; its config becomes this one.
        last_good: go on from the newest checkpoint that is whole; damaged newer ones are moved to ``damaged/``.

    Returns:
        Evaluation results by set, as `Evaluator` gives them; empty when a signal ended the run early.

    Raises:
        UserError: anything the user can put right; the message says what, where and how.
        Interrupted: SIGINT (Ctrl-C) came; everything is saved.
    """
    with contextlib.ExitStack() as held:
        return _train(config, epath.Path(workdir), held, extend=extend, last_good=last_good)


def _train(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    held: contextlib.ExitStack,
    *,
    extend: bool,
    last_good: bool,
) -> dict[str, Any]:
    """`train`; what must be given back in the end, such as the workdir, goes onto the stack."""
    began = time.perf_counter()
    files.check_answers(workdir)
    saved = _saved(workdir)
    config = own_data.resolve(settings.complete(config), saved)
    start.look_at_data(config)
    config = class_sets.resolve(config, saved)
    config = settings.complete(references.resolve(config, saved))
    steps, batch_size = config.train.steps, config.train.batch
    settings.check(config)
    if config.log.baseline:
        read_baseline(config.log.baseline)
    mesh = sharding.make_mesh(_devices(config.train.devices))
    target = targets.of(mesh.devices.flat)
    sharding.check_batch_size(batch_size, config.train.accumulate, mesh)
    method = methods.build(config)
    abstract = start.abstract_state(config, method, mesh)
    memory.check(config, method, abstract, mesh)
    network = loaded.network_of(method, config.eval.network)
    folder.check_folders(workdir)
    folder.take(workdir, held)
    moved_streams = folder.check(workdir, config, extend)
    readers, batches = _open_streams(config, method, mesh)
    moved.check_same(workdir, readers, moved_streams)
    evaluator = Evaluator(config, method, mesh, workdir)
    folder.agree(config, readers, batches.get_state())
    folder.claim(workdir, config, readers, again=extend or bool(moved_streams))

    if last_good:
        if jax.process_index() == 0:
            checkpoint.put_aside(workdir)
        sharding.wait_for_all("last good")
    saver = checkpoint.Checkpointer(workdir, keep=config.checkpoint.keep, best=config.checkpoint.best)
    first, apart = saver.latest() or 0, base.is_apart(config, abstract)
    clock = hooks.Clock()
    if first:
        state, host = saver.restore(first, base.without(abstract) if apart else abstract)
        if first > steps:
            raise UserError(
                f"{workdir} holds a checkpoint of step {first}, beyond train.steps={steps}: ask for more steps, or "
                "delete that checkpoint"
            )
        if apart:
            state = state.replace(frozen=state.frozen | {BASE: start.load_base(workdir, config, method, mesh)})
        with _damage_of(saver.path / f"{first:07d}"):
            batches.set_state(cast(Any, host.get("streams")))
            clock.restore(host.get("clock"))
        print(f"continuing {workdir} from step {first}", flush=True)
    else:
        state = start.first_state(config, method, mesh)
        if apart:
            base.record(workdir, config, state)
    print(_overview(config, readers, mesh))
    hooks.announce(workdir)
    if jax.process_index() == 0:
        print(writers.write_parameters(workdir, abstract.params), flush=True)

    print("compiling the training step", flush=True)
    compiling = time.perf_counter()
    with _missing_field_explained(config):
        step_fn = compile_step(method, abstract, start.abstract_batch(config, method, mesh), mesh)
    print(f"compiled in {time.perf_counter() - compiling:.1f} s", flush=True)
    visualize = jax.jit(sharding.gathering(mesh, targets.written_for(target, method.visualizations), abstract))
    writer = writers.MetricWriter(workdir, first) if jax.process_index() == 0 else writers.NoWriter()
    writer.text(first, "config", f"```\n{format_config(config)}\n```")
    name_records = functools.partial(_record_ids, readers)
    log = hooks.ScalarLog(writer, clock, first, steps, batch_size * len(readers), config.log.every, name_records)
    profile = hooks.Profile(workdir, first, config.log.profile_steps)
    stop = hooks.StopSignal()
    results, batch = {}, None
    try:
        for step in range(first, steps + 1):
            fresh, last = step > first, step == steps
            stopping = fresh and stop(step)
            metrics = {}
            if last or (fresh and _is_scored(step, config)):
                with clock.paused():
                    log.settle()
                    variables = jax.device_put(method.variables(state, network), sharding.replicated(mesh))
                    results = evaluator(variables, step, writer, brief=not last)
                    metrics = {name: result["miou"][result["primary"]] for name, result in results.items()}
                    if batch is not None:
                        write_visualizations(visualize(state, batch), workdir, step, writer, evaluator.classes)
                    write_evaluated(evaluator.panels(), workdir, step, writer, evaluator.classes)
            if fresh and (last or stopping or _due(step, config.checkpoint.every)):
                with clock.paused():
                    log.settle()
                    saved = base.without(state) if apart else state
                    saver.save(step, saved, {"streams": batches.get_state(), "clock": clock.state()}, metrics)
            if last or stopping:
                break
            profile(step)
            with clock.waiting():
                batch, index = next(batches)
            with jax.transfer_guard("disallow"):  # Nothing but what asks for it goes between host and device.
                state, scalars = step_fn(state, batch)
                log.push(step + 1, scalars, index)
            if step == first:
                print(f"first step after {time.perf_counter() - began:.1f} s", flush=True)
    except NotFinite as error:
        raise UserError(f"{error}. {_way_on(workdir, saver.latest())}") from error
    finally:
        stop.close()
        profile.close()
        saver.close()
        batches.close()
        writer.close()
    if stopping and not last:
        line = f"stopped at step {step}; the same command continues from there"
        if stop.by_hand:
            raise Interrupted(line)
        print(line, flush=True)
        return {}
    if jax.process_index() == 0:
        write_report(workdir, baseline=config.log.baseline or None)
    print(
        f"done in {time.perf_counter() - began:.0f} s, peak memory {hooks.memory_gb():.1f} GB; see "
        f"{workdir}/report.html"
    )
    if method.task == "segmentation":
        print(f"next: nightjax predict --workdir={workdir} --input=PHOTO")
    return results


def _overview(config: ml_collections.ConfigDict, readers: Mapping[str, sources.Source], mesh: jax.sharding.Mesh) -> str:
    """What runs where on which data, a line each."""
    devices = f"{mesh.devices.size} device{'s' if mesh.devices.size > 1 else ''} ({mesh.devices.flat[0].platform})"
    batch = f"{config.train.batch} images of each domain" if len(readers) > 1 else f"{config.train.batch} images"
    lines = [f"{config.method.name}: {config.train.steps} steps of {batch} on {devices}"]
    for name, reader in readers.items():
        stream = config.data.streams[name]
        lines.append(f"{name:8}{stream.dataset}, {stream.split}: {len(reader)} images")
    return "\n".join(lines)


def compile_step(
    method: Trainable,
    state: TrainState,
    batch: Batch,
    mesh: jax.sharding.Mesh,
    options: Mapping[str, Any] | None = None,
) -> jax.stages.Compiled:
    """The one compiled program of a run: ``(state, batch) -> (state, scalars)``, the state donated.

    Args:
        method: whose ``train_step`` it is.
        state, batch: arrays or their shapes, the state's with their shardings; any other shape is an error later, never
            a second program.
        mesh: the devices, which need not be here.
        options: more options of the compiler. On a CPU it optimizes at level 1, unless ``XLA_FLAGS`` names another.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    target, level, chosen = targets.of(mesh.devices.flat), "xla_backend_optimization_level", {}
    if target == "cpu" and level not in os.environ.get("XLA_FLAGS", ""):
        # The usual level 3 takes longer to compile, and the two programs measured (supervised, dsr_fpa) ran no faster.
        chosen = {level: 1}
    step = jax.jit(
        sharding.gathering(mesh, targets.written_for(target, method.train_step), state),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
        compiler_options={**chosen, **(options or {})},
    )
    return step.lower(state, batch).compile()


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


def _is_scored(step: int, config: ml_collections.ConfigDict) -> bool:
    every, last = config.eval.every, config.eval.last
    return _due(step, every) and (last == 0 or step > config.train.steps - last * every)


def _devices(limit: int) -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]
    devices = jax.devices()
    if limit > len(devices):
        raise UserError(f"train.devices={limit}, but JAX sees {len(devices)} device(s); lower it or use 0 for all")
    return devices[:limit] if limit else devices


def _saved(workdir: epath.Path) -> ml_collections.ConfigDict | None:
    """What the run in a workdir began with, or None."""
    return loaded.read_config(workdir) if (workdir / settings.CONFIG).exists() else None


@contextlib.contextmanager
def _damage_of(folder: epath.Path) -> Iterator[None]:
    """What is wrong with the host's part of a checkpoint is said with its name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"checkpoint {folder}: {error}; --step=last_good or an older checkpoint may help") from error


def _way_on(workdir: epath.Path, step: int | None) -> str:
    """Whether and from where a run can go on whose numbers are not finite any more."""
    rates = "a lower --config.optim.lr"
    if not step:
        return f"There is no checkpoint yet: look at the records, and start again with {rates} or optim.clip_norm"
    return (
        f"The checkpoint of step {step} in {workdir} is unharmed and finite. The same command resumes there and "
        f"meets the same numbers; with {rates} and --extend it continues at that rate. Look at the records too"
    )


def _open_streams(config: ml_collections.ConfigDict, method: Trainable, mesh: jax.sharding.Mesh):
    """The sources by domain, and an iterator over (device batch, host record positions)."""
    data, readers, iterators = config.data, {}, {}
    options = {"classes": class_section.of_section(config.classes), "merges": config.classes.merges.to_dict()}
    for name, spec in start.stream_specs(config, method).items():
        labeled = options if "label" in spec.fields else {}
        readers[name] = sources.open_source(
            spec.dataset, spec.split, data_dir=data.dir, manual_dir=data.manual_dir, **labeled
        )
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
        transforms.decode(
            readers[name][0], spec.fields, len(readers[name].classes)
        )  # What no record has is an error before anything compiles.

    def put(batch):
        index = {name: domain.pop("index") for name, domain in batch.items()}
        return sharding.put_batch(batch, mesh), index

    return readers, streams.prefetch(streams.Streams(iterators), put)


def _record_ids(readers: dict[str, sources.Source], index: dict[str, Any]) -> dict[str, list[str]]:
    return {name: streams.record_ids(readers[name], positions) for name, positions in index.items()}
