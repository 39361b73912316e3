"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import itertools
import sys

from nightjax.core import progress


def test_plain_lines_now_and_then(monkeypatch, capsys):
    clock = itertools.count(0.0, 2.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))  # Every look at it takes two seconds.
    assert list(progress.Progress(range(8), desc="photos", unit="image", mininterval=0)) == list(range(8))
    said = capsys.readouterr()
    assert said.err == "" and "\r" not in said.out
    assert said.out.splitlines() == ["photos: 3 of 8 images", "photos: 6 of 8 images"]


def test_short_work_is_silent(capsys):
    with progress.Progress(total=3, unit="image") as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress(total=3, unit="image", mininterval=0) as bar:
        bar.update(3)
    said = capsys.readouterr()
    assert said.out == "" and "3/3" in said.err
