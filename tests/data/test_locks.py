import sys
import threading
import time

import pytest

from nightjax.core.errors import UserError
from nightjax.data import locks


@pytest.mark.parametrize("system", ["unix", "other"])
def test_one_holds_the_lock_at_a_time(tmp_path, monkeypatch, system):
    if system == "other":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    inside, most = [], []

    def work():
        with locks.machine_lock(str(tmp_path / "data")):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6 and not (tmp_path / "data" / ".prepare.claim").exists()


def test_a_claim_that_is_kept_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    claim = tmp_path / ".prepare.claim"
    claim.touch()  # Of a process that was killed.
    threading.Timer(0.3, claim.unlink).start()
    with locks.machine_lock(str(tmp_path)):
        pass
    assert capsys.readouterr().out.count(str(claim)) == 1


def test_nothing_is_made_in_an_object_store():
    with pytest.raises(UserError, match="FOLDER gs://bucket/data"), locks.machine_lock("gs://bucket/data"):
        pass
