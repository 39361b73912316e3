"""A folder whose files have changed since they were written is told, with the name of the first."""

import os

import pytest
from etils import epath

from nightjax.core import files, manifest
from nightjax.core.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "state" / "d").mkdir(parents=True)
    (tmp_path / "state" / "d" / "a").write_bytes(b"x" * 100)
    (tmp_path / "b").write_bytes(b"")
    manifest.write(tmp_path)
    return tmp_path


def test_a_whole_folder_has_no_fault(folder):
    assert manifest.is_there(folder) and manifest.fault(folder) == ""
    (folder / "new").write_text("files that came later do not matter")
    assert manifest.fault(folder) == ""


def flipped(path):
    path.write_bytes(b"y" + path.read_bytes()[1:])


def replaced_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flipped, "state/d/a has another content"),
        (lambda path: path.write_bytes(b"x"), "state/d/a has another content"),
        (lambda path: path.unlink(), "state/d/a is missing"),
        (replaced_by_pipe, "state/d/a is missing"),
    ],
)
def test_what_has_changed_is_named(folder, damage, words):
    damage(folder / "state" / "d" / "a")
    assert words in manifest.fault(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"b": 3}}', "[" * 100_000])
def test_a_damaged_manifest_is_a_fault(folder, text):
    (folder / manifest.FILE).write_text(text)
    assert manifest.FILE in manifest.fault(folder)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "a.json"
    files.write_whole(path, "one")
    files.write_whole(epath.Path(path), b"two")
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["a.json"]
    with pytest.raises(UserError, match="sub is a folder"):
        files.write_whole(path.parent, "three")
