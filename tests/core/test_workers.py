"""Worker processes end with the process that started them, and leave no shared memory."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nightjax.core import workers
from tests.helpers.places import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc and /dev/shm")

PARENT = """
import multiprocessing, sys, time
from nightjax.core import workers

def work(queue):
    workers.end_with_parent()
    queue.put(1)
    time.sleep(100)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,), daemon=True)
    process.start()
    queue.get()
    print(process.pid, flush=True)
    time.sleep(100)
"""


def test_a_worker_ends_with_its_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def test_memory_of_dead_processes_is_unlinked_and_of_living_ones_stays(tmp_path, monkeypatch, capsys):
    import fcntl

    memory, locks = tmp_path / "shm", tmp_path / "locks"
    memory.mkdir(), locks.mkdir()
    monkeypatch.setattr(workers, "SHARED_MEMORY", memory)
    monkeypatch.setattr(workers, "_locks", lambda: locks)
    for name in ("njaaaaaa_01", "sem.njaaaaaa_x", "njbbbbbb_01", "njcccccc_01", "psm_1"):
        (memory / name).touch()
    (locks / "aaaaaa").touch()
    with (locks / "bbbbbb").open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert workers.unlink_leftovers() == 2
    left = {path.name for path in memory.iterdir()}
    assert left == {"njbbbbbb_01", "njcccccc_01", "psm_1"}  # Nobody knows whose the last two are.
    assert [path.name for path in locks.iterdir()] == ["bbbbbb"]
    assert "unlinked 2 files" in capsys.readouterr().out
