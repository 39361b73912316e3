"""One walker: litter, links, suffixes, Unicode, and what is no file."""

import os
import socket
import unicodedata

import pytest

from nightjax.core.errors import UserError
from nightjax.data import walking


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


LITTERED = (
    "._a.png",
    ".hidden/a.png",
    "__MACOSX/._a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    "Thumbs.db",
    "sub/DESKTOP.INI",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.png",
    "a.png~",
    "$RECYCLE.BIN/a.png",
    "Icon\r",
    "~$notes.png",
    "b.png.crdownload",
)


def test_litter_is_passed_over_and_not_talked_about(tmp_path):
    make(tmp_path, "a.png", "sub/b.JPG", *LITTERED)
    listing = walking.walk(tmp_path)
    assert list(listing.files) == ["a.png", "sub/b.JPG"]
    assert set(listing.passed.values()) == {walking.LITTER} and len(listing.passed) == len(LITTERED)
    assert listing.summary() == ""


def test_other_files_are_named(tmp_path):
    make(tmp_path, "a.png", "clip.mp4", "x/notes.TXT", "LICENSE", *(f"{i}.json" for i in range(9)))
    listing = walking.walk(tmp_path)
    assert listing.passed["clip.mp4"] == ".mp4" and listing.passed["x/notes.TXT"] == ".txt"
    assert listing.passed["LICENSE"] == "no suffix"
    assert listing.summary(2) == "12 passed over: 0.json (.json), 1.json (.json), and 10 more"


def test_the_folder_itself_may_be_hidden(tmp_path):
    make(tmp_path / ".data" / "@eaDir", "a.png")
    assert list(walking.walk(tmp_path / ".data" / "@eaDir").files) == ["a.png"]


def test_order_is_that_of_the_parts(tmp_path):
    make(tmp_path, "a-b/x.png", "a/x.png", "a.png", "a/b/x.png")
    assert list(walking.walk(tmp_path).files) == ["a/b/x.png", "a/x.png", "a-b/x.png", "a.png"]


@pytest.mark.parametrize("target", [".", "..", "../photos", "../other"])
def test_loops_of_links_end_and_each_picture_comes_once(tmp_path, target):
    make(tmp_path / "photos", "a.png", "deep/b.png")
    make(tmp_path / "other", "c.png")
    (tmp_path / "other/back").symlink_to("../photos")
    (tmp_path / "photos/again").symlink_to(target)
    (tmp_path / "photos/deep/up").symlink_to("..")
    files = walking.walk(tmp_path / "photos").files
    expected = {"a.png", "deep/b.png"} | ({"again/c.png"} if target == "../other" else set())
    assert set(files) == expected
    assert len(walking.walk(tmp_path / "photos", repeated=True).files) < 10


def test_links_between_two_folders(tmp_path):
    make(tmp_path, "x/1.png", "y/2.png")
    (tmp_path / "x/to_y").symlink_to("../y")
    (tmp_path / "y/to_x").symlink_to("../x")
    listing = walking.walk(tmp_path)
    assert list(listing.files) == ["x/1.png", "y/2.png"]
    assert listing.passed == {"x/to_y": walking.LOOP, "y/to_x": walking.LOOP}
    assert set(walking.walk(tmp_path, repeated=True).files) == {"x/1.png", "y/2.png", "x/to_y/2.png", "y/to_x/1.png"}


def test_many_folders_that_all_link_to_each_other(tmp_path):
    names = [f"f{i}" for i in range(7)]
    for name in names:
        make(tmp_path, f"{name}/{name}.png")
        for other in names:
            (tmp_path / name / f"to_{other}").symlink_to(f"../{other}")
    assert len(walking.walk(tmp_path).files) == 7
    assert len(walking.walk(tmp_path, repeated=True).files) < 400


def test_a_split_that_is_a_link(tmp_path):
    make(tmp_path / "store", "a.png", "b.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/train").symlink_to(tmp_path / "store")
    (tmp_path / "images/c.png").symlink_to(tmp_path / "store/a.png")
    assert list(walking.walk(tmp_path / "images").files) == ["c.png", "train/a.png", "train/b.png"]


def test_what_is_no_file_is_never_opened(tmp_path):
    make(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.png"))
        listing = walking.walk(tmp_path)
    assert list(listing.files) == ["a.png"]
    assert listing.passed["pipe.png"] == listing.passed["s.png"] == listing.passed["null.png"] == walking.SPECIAL
    assert listing.passed["nowhere.png"] == listing.passed["self.png"] == walking.NOWHERE


def test_names_are_in_one_unicode_form(tmp_path):
    apart = unicodedata.normalize("NFD", "Zürich")
    make(tmp_path, f"{apart}/ä.png")
    (name,) = walking.walk(tmp_path).files
    assert name == "Zürich/ä.png" and walking.walk(tmp_path).files[name].exists()
    make(tmp_path, "ö.png", unicodedata.normalize("NFD", "ö.png"))
    with pytest.raises(UserError, match="Unicode"):
        walking.walk(tmp_path)


def test_match_ignores_case_and_litter(tmp_path):
    make(tmp_path, "RGB/0.PNG", "RGB/._0.png", "rgb/train/1.png", ".x/2.png", "rgb/train/3.jpg")
    assert [name for name, _ in walking.match(tmp_path, "rgb/*.png")] == ["RGB/0.PNG"]
    assert [name for name, _ in walking.match(tmp_path, "*/*/*.png")] == ["rgb/train/1.png"]
    assert not list(walking.match(tmp_path / "RGB", "nothing/*.png"))


def test_a_missing_folder_is_empty(tmp_path):
    assert walking.walk(tmp_path / "nowhere") == walking.Listing({}, {})


@pytest.mark.parametrize("root", ["/", "/tmp/..", "link"])
def test_the_root_of_the_file_system_is_refused(root, tmp_path):
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(UserError, match="the root of the file system: name the folder with the images"):
        walking.walk(tmp_path / root)
