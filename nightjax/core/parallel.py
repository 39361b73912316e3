# SPDX-License-Identifier: Apache-2.0
"""Ordered work on all cores, for preparing and checking data."""

import collections
import concurrent.futures
import concurrent.futures.process
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import cv2

from nightjax.core.errors import UserError
from nightjax.core.progress import Progress
from nightjax.core.workers import initializer, token

SERIAL_BELOW = 64
"""Fewer items than this are not worth starting processes for."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Item], Result], items: Sequence[Item], *, desc: str, workers: int | None = None
) -> Iterator[Result]:
    """Yields ``work(item)`` in order, computed on all cores, with a progress bar.

    A bounded number of items is in flight, so memory does not grow with their number. The worker processes import the
    calling script again, so a script needs a guard ``if __name__ == "__main__":``.

    Args:
        work: a picklable function (module level, or a partial of one).
        items: picklable arguments.
        desc: text of the progress bar.
        workers: number of processes; one a core by default. Short lists are done in this process.

    Raises:
        UserError: a worker process died.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    with Progress(total=len(items), desc=desc, unit="record") as bar:
        if workers <= 1 or len(items) < SERIAL_BELOW:
            for item in items:
                yield work(item)
                bar.update()
            return
        token()  # Names what the pool shares.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=initializer, initargs=(cv2.setNumThreads, 1)
        ) as pool:
            queue = iter(items)
            pending = collections.deque(pool.submit(work, item) for item in itertools.islice(queue, 4 * workers))
            while pending:
                try:
                    yield pending.popleft().result()
                except concurrent.futures.process.BrokenProcessPool as error:
                    raise UserError(
                        f"{desc}: a worker process died; either memory ran out (use fewer workers) "
                        'or the calling script lacks its guard if __name__ == "__main__":'
                    ) from error
                bar.update()
                pending.extend(pool.submit(work, item) for item in itertools.islice(queue, 1))
