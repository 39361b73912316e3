"""Text as editors of all systems write it, and files that must not be opened."""

import os
import threading

import pytest

from nightjax.core import files
from nightjax.core.errors import UserError
from nightjax.core.files import read_bytes, read_text

TEXT = "x/Zürich_0\nx/f1\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"], ids=lambda name: name
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    (tmp_path / "list.txt").write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_text(tmp_path / "list.txt") == TEXT


def test_big_endian_with_a_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read_text(tmp_path / "list.txt") == TEXT


@pytest.mark.parametrize("data", [b"Stra\xdfe\n", b"\xff\xfe\x00", b"\xef\xbb\xbf\xff"])
def test_other_encodings_are_one_line(tmp_path, data):
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"list.txt is neither UTF-8 nor UTF-16 text .*: save it again as UTF-8"):
        read_text(tmp_path / "list.txt")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match="is a pipe, socket or device"):
            read_bytes(path)
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"cannot read {path}"):
            read_bytes(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00{}", b"[" * 100_000, b"[]", b"null", b"5"])
def test_json_of_another_kind_is_one_line(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="a.json .*: make it again") as error:
        files.read_json(tmp_path / "a.json", dict, "make it again")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="a pipe, socket or device"):
        files.read_json(tmp_path / "a.json", dict, "")


def test_nothing_is_written_in_the_place_of_a_device_or_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(UserError, match="is a pipe, socket or device, and a file is to be written there"):
            files.write_whole(path, "x")
        assert files.is_special(path)


def test_a_path_that_does_not_answer_is_told(tmp_path):
    never = threading.Event()
    with pytest.raises(UserError, match="does not answer within 0.05 s"):
        files.check_answers(tmp_path, seconds=0.05, exists=lambda: never.wait(5))
    never.set()
    files.check_answers(tmp_path)
    with pytest.raises(UserError, match="a word"):
        files.check_answers(tmp_path, exists=lambda: (_ for _ in ()).throw(UserError("a word")))
