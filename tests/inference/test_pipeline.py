import threading
import weakref

import pytest

from nightjax.inference.pipeline import MOST, pipelined

SECONDS = 20


def test_items_come_back_in_order_with_what_became_of_them():
    def read(item):
        if item == 2:
            raise ValueError("bad file")
        return item * 10

    def work(content):
        if content == 40:
            raise MemoryError
        return content + 1

    def write(item, content, result):
        if item == 5:
            raise OSError("disk full")
        return item, content, result

    steps = pipelined(range(7), read, work, write, cost=lambda item: 1, limit=4, threads=3)
    outcomes = [(item, written.exception() or written.result()) for item, written in steps]
    assert [item for item, _ in outcomes] == list(range(7))
    assert [outcome for _, outcome in outcomes if isinstance(outcome, tuple)] == [
        (i, 10 * i, 10 * i + 1) for i in (0, 1, 3, 6)
    ]
    assert [type(outcomes[i][1]) for i in (2, 4, 5)] == [ValueError, MemoryError, OSError]


def test_the_next_is_read_and_the_last_is_written_meanwhile():
    reads, writes = [threading.Event() for _ in range(4)], [threading.Event() for _ in range(3)]
    written = threading.Event()

    def work(item):
        if item < 2:
            assert reads[item + 1].wait(SECONDS), "the next item is not read"
        if item > 0:
            assert writes[item - 1].wait(SECONDS), "the last item is not written"
            written.set()

    def write(item, content, result):
        writes[item].set()
        assert item > 0 or written.wait(SECONDS), "nobody works while this is written"

    steps = pipelined(range(3), lambda item: reads[item].set() or item, work, write, cost=lambda item: 1, limit=3)
    for _, outcome in steps:
        outcome.result()


@pytest.mark.parametrize("cost, most", [(1, MOST), (5, 2), (11, 1)])
def test_no_more_is_held_than_the_limit(cost, most):
    held, peak = [], []

    class Content:
        pass

    def read(item):
        content = Content()
        held.append(weakref.ref(content))
        peak.append(sum(there() is not None for there in list(held)))
        return content

    taken = []
    items = (taken.append(i) or i for i in range(60))
    for item, outcome in pipelined(
        items, read, lambda content: content, lambda *_: None, cost=lambda item: cost, limit=10, threads=4
    ):
        outcome.result()
        assert len(taken) <= item + most + 2
    assert max(peak) <= most


def test_an_interruption_lets_what_is_done_be_written():
    written = []

    def work(item):
        if item == 3:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        for _ in pipelined(range(9), lambda i: i, work, lambda i, *_: written.append(i), cost=lambda item: 1, limit=9):
            pass
    assert written == [0, 1, 2]
