"""Endless training streams and finite evaluation batches over random-access sources, on grain.

The order of records is a function of (seed, position) alone. Process p of P reads the p-th part of every global batch,
so any number of processes sees the same global batches, and the only state of a stream is how many it has delivered.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import cv2
import grain
import numpy as np
from absl import flags

from nightjax.core.errors import UserError
from nightjax.data import sampling, transforms
from nightjax.data.loading import Arrays, LoadEvalBatch, LoadExample, StreamSpec
from nightjax.data.sources import Source


class Stream:
    """Iterator over this process's part of every global batch, restartable at any batch.

    A batch holds the fields of the spec, stacked; ``mask`` float32 [B], all ones; ``index`` int64 [B], the records'
    positions in the source (`record_ids` names them).
    """

    def __init__(self, batches: grain.MapDataset, *, workers: int = 0, threads: int = 2):
        self._batches = batches
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

    def get_state(self) -> dict[str, int]:
        """JSON-serializable; the same on every process, and valid for any number of processes, workers and threads."""
        return {"next_index": self._position}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continues with batch ``state["next_index"]``; nothing is replayed."""
        self.close()
        self._position = int(state["next_index"])

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
            dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
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
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        if set(state) != set(self._streams):
            raise UserError(
                f"the checkpoint has the data streams {sorted(state)} but the config asks for {sorted(self._streams)}: "
                "use the config the run was started with, or another workdir"
            )
        for name, stream in self._streams.items():
            stream.set_state(state[name])

    def close(self) -> None:
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
) -> Self:
    """Opens an endless training stream.

    Args:
        source: random-access records.
        spec: what to do with them.
        batch_size: examples a *global* batch.
        seed: of the run.
        process_index: which part of every batch to read.
        process_count: number of parts.
        workers: worker processes that decode; 0 decodes in threads of this process.
        threads: batches decoded at a time, in each worker.

    Raises:
        UserError: empty source, or a batch that does not divide by the processes.
    """
    _check_batch(source, batch_size, process_count)
    stream_seed = zlib.crc32(f"{seed}/{spec.name}".encode())
    if spec.rare_class is None:
        draws = sampling.shuffled(len(source), stream_seed)
    else:
        draws = sampling.rare_class_draws(source.class_pixels(), spec.rare_class, stream_seed)
    batches = draws.random_map(LoadExample(source, spec)).batch(batch_size // process_count)
    return Stream(batches[process_index::process_count], workers=workers, threads=threads)


def record_ids(source: Source, index: Sequence[int] | np.ndarray) -> list[str]:
    """Names of the records at the positions a batch carries in ``index`` (-1, padding, gives an empty name)."""
    return [str(source[int(i)]["image_id"]) if i >= 0 else "" for i in np.ravel(index)]


def prefetch(stream: Stream | Streams, put: Callable[[Any], Any], depth: int = 2) -> grain.DatasetIterator:
    """Reads ahead in a thread, through ``put``.

    Args:
        stream: one or several streams.
        put: batch of NumPy arrays to what the loop wants, such as device arrays; runs in the thread.
        depth: batches kept ready.

    Returns:
        An iterator whose ``get_state`` is the stream's state after the batch returned last, whatever was read ahead.
        Its ``close`` closes the stream as well.
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
        super().__init__(mapped, depth)
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

    Records of one size are batched together, sizes in the order of their first appearance, so at most one batch a size
    is padded (image 0, label 255, mask 0, index -1). Every process gets equally many batches, of equal shapes.

    Args:
        source: random-access records.
        batch_size: examples a *global* batch.
        size: (height, width) to resize everything to; None keeps each record's own size.
        fields: keys of `transforms.FEATURES`; "image" first.
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


def _start_worker(worker_index: int, worker_count: int) -> None:
    """Workers are the parallelism: OpenCV must not start a thread for every core in each of them."""
    cv2.setNumThreads(1)
