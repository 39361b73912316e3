# SPDX-License-Identifier: Apache-2.0
"""Work on one item after the other, while those ahead are read and those behind are written in other threads."""

import collections
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")
Result = TypeVar("Result")
Written = TypeVar("Written")

MOST = 16
"""How many items are held at a time, however small they are."""


def pipelined(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    work: Callable[[Content], Result],
    write: Callable[[Item, Content, Result], Written],
    *,
    cost: Callable[[Item], int],
    limit: int,
    threads: int = 1,
) -> Generator[tuple[Item, Future[Written]], None, None]:
    """Reads, works on and writes every item, and returns them in their order.

    Args:
        items: what to do; taken only as they are needed.
        read: gets the content of an item; runs in another thread.
        work: runs in the caller's thread.
        write: what to do with a result; runs in another thread.
        cost: how much memory an item takes, in any unit.
        limit: up to which cost further items are read while others are still held. An item that costs more is alone.
        threads: that read, and that write. With one of each, items are read and written in their order.

    Yields:
        Each item, and what became of it: what ``write`` returned, or whatever error one of the three steps raised.
    """
    reading: collections.deque[tuple[Item, Future[Content]]] = collections.deque()
    writing: collections.deque[tuple[Item, Future[Written]]] = collections.deque()
    held, left = 0, iter(items)
    following = list(itertools.islice(left, 1))
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        while following or reading or writing:
            while following and _fits(held, cost(following[0]), limit, len(reading) + len(writing)):
                item = following.pop()
                held += cost(item)
                reading.append((item, readers.submit(read, item)))
                following = list(itertools.islice(left, 1))
            if reading:
                writing.append(_worked(*reading.popleft(), work, write, writers))
            while writing and (writing[0][1].done() or not reading):
                item, written = writing.popleft()
                held -= cost(item)
                yield item, written


def _fits(held: int, cost: int, limit: int, number: int) -> bool:
    return not number or (held + cost <= limit and number < MOST)


def _worked(
    item: Item,
    content: Future[Content],
    work: Callable[[Content], Result],
    write: Callable[[Item, Content, Result], Written],
    writers: ThreadPoolExecutor,
) -> tuple[Item, Future[Written]]:
    """A function of its own, so that no variable keeps an image alive while others are read."""
    try:
        return item, writers.submit(write, item, content.result(), work(content.result()))
    except Exception as error:  # Of reading or of the work; the caller learns it with the item.
        failed: Future[Written] = Future()
        failed.set_exception(error)
        return item, failed
