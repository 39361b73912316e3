# SPDX-License-Identifier: Apache-2.0
"""Endless training streams and finite evaluation batches over random-access sources, on grain.

The order of records is a function of (seed, position) alone. Process p of P reads the p-th part of every global batch,
so any number of processes sees the same global batches. The state of a stream is how many batches it has delivered and
a fingerprint of the order, so that no run continues in another order.
"""

import functools
import signal
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import cv2
import grain
import numpy as np
from absl import flags

from nightjax.core import workers
from nightjax.core.errors import UserError
from nightjax.data import sampling, transforms
from nightjax.data.loading import Arrays, LoadEvalBatch, LoadExample, StreamSpec
from nightjax.data.sources import Source


class Stream:
    """Iterator over this process's part of every global batch, restartable at any batch.

    A batch holds the fields of the spec, stacked; ``mask`` float32 [B], all ones; and ``index`` int64 [B], the
    positions of the records in the source (`record_ids` names them).

    Args:
        name: of the domain, for messages.
        batches: this process's part of every batch, by position.
        order: see `sampling.fingerprint`.
        workers, threads: see `make_stream`.
    """

    def __init__(
        self, name: str, batches: grain.MapDataset, order: Mapping[str, Any], *, workers: int = 0, threads: int = 2
    ):
        self._name = name
        self._batches = batches
        self._order = dict(order)
        self._workers = workers
        self._threads = threads
        self._position = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Arrays:
        if self._iterator is None:
            self._iterator = iter(self._read_from(self._position))
        batch = next(self._iterator)
        self._position += 1
        if self._workers:  # Leave the workers' shared memory at once: whoever keeps a batch would keep that as well.
            batch = {field: np.array(value) for field, value in batch.items()}
        return batch

    def get_state(self) -> dict[str, Any]:
        """JSON-serializable; the same on every process, and valid for any number of processes, workers and threads."""
        return {"next_index": self._position, "order": self._order}

    def set_state(self, state: Any) -> None:
        """Continues with batch ``state["next_index"]``; nothing is replayed.

        Raises:
            UserError: the state is none, or of another order of records (a state without a fingerprint is taken as it
                is).
        """
        position = state.get("next_index") if isinstance(state, Mapping) else None
        order = state.get("order", {}) if isinstance(state, Mapping) else None
        if not isinstance(position, int) or not 0 <= position < sampling.ENDLESS or not isinstance(order, Mapping):
            raise UserError(f"stream {self._name!r}: the position in its data is damaged (next_index={position!r})")
        if lacking := sorted({"sha256", "records", "grain", "numpy"} - order.keys()) if order else []:
            raise UserError(
                f"stream {self._name!r}: the position in its data is damaged (its order has no {lacking[0]!r})"
            )
        if "order" in state:
            sampling.check_same_order(self._name, state["order"], self._order)
        self.close()
        self._position = position

    def close(self) -> None:
        """Stops threads and worker processes; the stream may be read again afterwards."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _read_from(self, position: int) -> grain.IterDataset:
        threads = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
        dataset = self._batches[position:].to_iter_dataset(threads)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags; notebooks and tests parse none.
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self._workers)
            dataset = dataset.mp_prefetch(options, worker_init_fn=functools.partial(_start_worker, workers.token()))
        return dataset


class Streams:
    """Several streams read in step: batches are ``{name: batch}``, states ``{name: state}``."""

    def __init__(self, streams: Mapping[str, Stream]):
        self._streams = dict(streams)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Arrays]:
        return {name: next(stream) for name, stream in self._streams.items()}

    def get_state(self) -> dict[str, Any]:
        """The state of each stream by name."""
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def set_state(self, state: Any) -> None:
        """Sets the state of each stream; raises `UserError` if the streams are not those of the state."""
        if not isinstance(state, Mapping) or set(state) != set(self._streams):
            raise UserError(
                f"the checkpoint has the data streams {sorted(state or ())} but the config asks for "
                f"{sorted(self._streams)}: "
                "use the config the run was started with, or another workdir"
            )
        for name, stream in self._streams.items():
            stream.set_state(state[name])

    def close(self) -> None:
        """Closes every stream."""
        for stream in self._streams.values():
            stream.close()


def make_stream(
    source: Source,
    spec: StreamSpec,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
) -> Stream:
    """Opens an endless training stream.

    Args:
        source: random-access records.
        spec: what to do with them.
        batch_size: examples in a *global* batch.
        seed: of the run.
        process_index: which part of every batch to read.
        process_count: number of parts.
        workers: worker processes that decode; 0 decodes in threads of this process.
        threads: batches decoded at a time in each worker.

    Raises:
        UserError: empty source, or a batch that does not divide by the processes.
    """
    _check_batch(source, batch_size, process_count)
    stream_seed = zlib.crc32(f"{seed}/{spec.name}".encode())
    if spec.rare_class is None:
        order = sampling.shuffled_records(len(source), stream_seed)
    else:
        order = sampling.rare_class_records(source.class_pixels(), spec.rare_class, stream_seed)
    batches = order.random_map(LoadExample(source, spec)).batch(batch_size // process_count)
    return Stream(
        spec.name,
        batches[process_index::process_count],
        sampling.fingerprint(order, len(source)),
        workers=workers,
        threads=threads,
    )


def record_ids(source: Source, index: Sequence[int] | np.ndarray) -> list[str]:
    """Names of the records at the positions a batch carries in ``index`` (-1, padding, gives an empty name)."""
    return [str(source[int(i)]["image_id"]) if i >= 0 else "" for i in np.ravel(index)]


def prefetch(stream: Stream | Streams, put: Callable[[Any], Any], depth: int = 2) -> grain.DatasetIterator:
    """Reads ahead in a thread, through ``put``.

    Args:
        stream: one or several streams.
        put: turns a batch of NumPy arrays into what the loop wants, such as device arrays; runs in the thread.
        depth: batches kept ready.

    Returns:
        An iterator whose ``get_state`` is the stream's state after the last batch it returned, whatever was read ahead.
        Its ``close`` closes the stream too.
    """
    return _Prefetched(_Mapped(stream, put), depth)


class _Mapped:
    """A stream seen through a function."""

    def __init__(self, stream: Stream | Streams, function: Callable[[Any], Any]):
        self._function = function
        self.get_state = stream.get_state
        self.set_state = stream.set_state
        self.close = stream.close
        self._stream = stream

    def __next__(self) -> Any:
        return self._function(next(self._stream))


class _Prefetched(grain.experimental.ThreadPrefetchDatasetIterator):
    def __init__(self, mapped: _Mapped, depth: int):
        super().__init__(cast(grain.DatasetIterator, mapped), depth)
        self._close_stream = mapped.close

    def close(self) -> None:
        if not self._closed:
            super().close()
            self._close_stream()


def make_eval_batches(
    source: Source,
    batch_size: int,
    *,
    size: tuple[int, int] | None = None,
    fields: tuple[str, ...] = ("image", "label"),
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> grain.IterDataset:
    """Every record exactly once, in a fixed order, in batches of one shape each.

    Records of one size are batched together, sizes in the order of their first appearance, so at most one batch of each
    size is padded (image 0, label 255, mask 0, index -1). Every process gets equally many batches of equal shapes.

    Args:
        source: random-access records.
        batch_size: examples in a *global* batch.
        size: (height, width) to resize everything to; None keeps each record's own size.
        fields: some of `transforms.FEATURES`, "image" first.
        process_index: which part of every batch to read.
        process_count: number of parts.
        threads: batches decoded at a time.

    Returns:
        Batches as `Stream` gives them.

    Raises:
        UserError: empty source, or a batch that does not divide by the processes.
    """
    _check_batch(source, batch_size, process_count)
    sizes = [size] * len(source) if size else [transforms.image_size(source[i]) for i in range(len(source))]
    local = batch_size // process_count
    plan = []
    for group in dict.fromkeys(sizes):
        members = [index for index, of_size in enumerate(sizes) if of_size == group]
        members += [-1] * (-len(members) % batch_size)
        for start in range(process_index * local, len(members), batch_size):
            plan.append((group, tuple(members[start : start + local])))
    batches = grain.MapDataset.source(plan).map(LoadEvalBatch(source, fields))
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))


def _check_batch(source: Source, batch_size: int, process_count: int) -> None:
    if len(source) == 0:
        raise UserError(f"{source.name}, split {source.split!r}, has no records")
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} must be 1 or more: change the batch size")
    if batch_size % process_count:
        raise UserError(f"batch size {batch_size} does not divide by {process_count} processes: change the batch size")


def _start_worker(token: str, worker_index: int, worker_count: int) -> None:
    """OpenCV must not start a thread for every core in each worker: the workers are the parallelism.

    Ctrl-C goes to all processes of a terminal; the one that reads from the workers ends them.
    """
    del worker_index, worker_count
    workers.end_with_parent()
    workers.name_memory(token)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
