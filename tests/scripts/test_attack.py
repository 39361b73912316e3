"""The generator of wrong inputs: it draws the same again, sees how a command ends, and finds nothing."""

import pathlib
import random
import subprocess
import sys
import time
import types

import pytest

from nightjax.core.errors import UserError
from tests.helpers.places import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def mistake(argv):
    raise UserError("a, b and c")


def defect(argv):
    raise ZeroDivisionError


def chatty(argv):
    print("a warning", file=sys.stderr)
    raise UserError("a")


@pytest.mark.parametrize(
    ("main", "kind", "bad"),
    [
        (mistake, "line", False),
        (defect, "traceback", True),
        (chatty, "noise", True),
        (lambda argv: time.sleep(5), "hang", True),
        (lambda argv: print("done"), "done", True),
        (lambda argv: [print("label: 5"), sys.exit(2)], "faults", False),
    ],
    ids=["mistake", "defect", "chatty", "hang", "accepted", "faults"],
)
def test_it_sees_how_a_command_ends(main, kind, bad, monkeypatch):
    from attacks import outcomes

    monkeypatch.setattr(outcomes.command, "find", lambda verb: types.SimpleNamespace(main=main))
    found = outcomes.run("train", [], 0.3)
    assert found.kind == kind and found.is_bad(wrong=True) == bad


def test_damage_changes_a_file_in_the_same_way_again(tmp_path):
    from attacks import inputs

    for name, damage in inputs.DAMAGE.items():
        found = []
        for _ in range(2):
            path = tmp_path / "a.json"
            if path.is_symlink() or path.exists():
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_text('{"steps": 4, "sets": {"val": [1, 2]}}')
            damage(path, random.Random(3))
            found.append(path.read_bytes() if path.is_file() and not path.is_symlink() else name)
        assert found[0] == found[1] != b'{"steps": 4, "sets": {"val": [1, 2]}}', name


@pytest.mark.slow
def test_inputs_of_all_kinds_end_in_one_line(tmp_path):
    """Three minutes of them; more by the script itself."""
    command = [sys.executable, str(ROOT / "scripts" / "attack.py"), "--minutes=3", "--seed=11", "--real=20"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(done.stdout.split(" inputs:")[0].rsplit(maxsplit=1)[-1]) > 20
    assert not list(pathlib.Path(tmp_path).iterdir())
