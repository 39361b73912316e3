"""One run at a time in a folder: locks on disks, claims in stores."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from etils import epath

from nightjax.core import claims
from nightjax.core.errors import UserError
from tests.helpers.places import ROOT

HOLD = "import sys, time; from nightjax.core import claims; held = claims.held(sys.argv[1]); held.__enter__(); "


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in {"RENEWAL": 0.05, "PATIENCE": 0.5, "SETTLING": 0.1}.items():
        monkeypatch.setattr(claims, name, seconds)


def test_a_lock_keeps_others_out_and_names_its_holder(tmp_path):
    with claims.held(tmp_path):
        for _ in range(2):
            holder = f"in use by process {os.getpid()} on {socket.gethostname()} since"
            with pytest.raises(UserError, match=holder), claims.held(tmp_path):
                pass
    assert not list(tmp_path.iterdir())
    with claims.held(tmp_path):
        pass


def test_a_lock_ends_with_a_killed_process(tmp_path):
    code = HOLD + "print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid} on"), claims.held(tmp_path):
        pass
    process.kill()
    process.wait()
    with claims.held(tmp_path):
        assert json.loads((tmp_path / claims.LOCK).read_text())["pid"] == os.getpid()


def test_a_claim_that_is_renewed_keeps_others_out(tmp_path, quick, capsys):
    root = epath.Path(tmp_path)
    with claims._claimed(root):
        own = json.loads((root / claims.CLAIM).read_text())
        holder = f"in use by process {own['pid']} on .* since .*, renewed"
        with pytest.raises(UserError, match=holder), claims._claimed(root):
            pass
    assert f"if that run is gone, delete {root / claims.CLAIM}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_stale_claim_is_named_and_taken_over(tmp_path, quick, capsys):
    path = tmp_path / claims.CLAIM
    path.write_text(json.dumps({"host": "other", "pid": 7, "since": "2026-01-01", "id": "x"}))
    with claims._claimed(epath.Path(tmp_path)):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert "claim of process 7 on other since 2026-01-01 is stale, and taken over" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "null", "[" * 5000, "\x00"])
def test_a_damaged_claim_is_taken_over(tmp_path, quick, content):
    (tmp_path / claims.CLAIM).write_text(content)
    with claims._claimed(epath.Path(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_claim_of_a_process_of_this_host_that_is_gone_counts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims, "SETTLING", 0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    told = {"host": socket.gethostname(), "pid": gone.pid, "since": "now", "id": "x"}
    (tmp_path / claims.CLAIM).write_text(json.dumps(told))
    with claims._claimed(epath.Path(tmp_path)):
        pass
    assert not capsys.readouterr().out


def test_of_two_that_claim_at_once_one_goes_on(tmp_path, quick):
    inside, refused, both = [], [], threading.Barrier(2)

    def claim():
        both.wait()
        try:
            with claims._claimed(epath.Path(tmp_path)):
                inside.append(1)
                threading.Event().wait(0.8)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inside) == len(refused) == 1
