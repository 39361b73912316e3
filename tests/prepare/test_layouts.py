"""Discovery: renamed folders, parts side by side, archives, and one clear error."""

import shutil

import pytest

from nightjax.core.errors import UserError
from nightjax.prepare import layouts

LAYOUT = layouts.Layout(
    title="Moon Roads",
    page="https://example.org/moon",
    folders=("Moon_Roads",),
    markers=("rgb/train", "rgb/val"),
    archives={"moon_train.zip": "rgb/train", "moon_val.zip": "rgb/val"},
)


def plant(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(folder))


@pytest.mark.parametrize("inner", ["", "Moon_Roads", "moonroads", "MOON-ROADS", "moon_train", "Moon Roads/moon_train"])
def test_known_places(tmp_path, inner):
    plant(tmp_path / inner, "rgb/train/a.png")
    tree = layouts.find_tree(LAYOUT, tmp_path, tmp_path / "unpacked")
    assert list(tree.glob("rgb/train/*.png")) == ["rgb/train/a.png"]
    assert not (tmp_path / "unpacked").exists()


def test_parts_side_by_side_are_one_tree(tmp_path):
    plant(tmp_path / "moon_train", "rgb/train/b.png", "rgb/train/a.png")
    plant(tmp_path / "moon_val", "rgb/val/c.png", "rgb/val/.hidden.png")
    tree = layouts.find_tree(LAYOUT, tmp_path, tmp_path)
    assert list(tree.glob("rgb/*/*.png")) == ["rgb/train/a.png", "rgb/train/b.png", "rgb/val/c.png"]


def test_only_missing_archives_are_unpacked(tmp_path):
    manual = tmp_path / "manual"
    plant(tmp_path / "part", "rgb/val/c.png")
    shutil.make_archive(manual / "moon_val", "zip", tmp_path / "part")
    (manual / "moon_train.zip").write_bytes(b"not opened, because the folder is there")
    plant(manual / "Moon_Roads", "rgb/train/a.png")
    tree = layouts.find_tree(LAYOUT, manual, tmp_path / "unpacked")
    assert list(tree.glob("rgb/*/*.png")) == ["rgb/train/a.png", "rgb/val/c.png"]
    assert len(list((tmp_path / "unpacked").iterdir())) == 1


def test_strangers_are_not_mixed_in(tmp_path):
    plant(tmp_path / "Mars", "rgb/train/x.png")
    plant(tmp_path / "Moon_Roads", "rgb/train/a.png")
    tree = layouts.find_tree(LAYOUT, tmp_path, tmp_path)
    assert list(tree.glob("rgb/*/*.png")) == ["rgb/train/a.png"]


def test_error_says_looked_for_found_and_page(tmp_path):
    plant(tmp_path, "holiday.jpg")
    with pytest.raises(UserError) as caught:
        layouts.find_tree(LAYOUT, tmp_path, tmp_path)
    message = str(caught.value)
    for part in (
        "Moon Roads",
        "holiday.jpg",
        "moon_train.zip",
        "rgb/train",
        "https://example.org/moon",
    ):
        assert part in message
    assert "\n" not in message


def test_absent_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        layouts.find_tree(LAYOUT, tmp_path / "nowhere", tmp_path)


def test_match_names_both_kinds_of_lonely_files():
    both, lonely = layouts.match({"a": 1, "b": 1}, {"b": 1, "c": 1}, "label")
    assert both == ["b"] and lonely == ["a has no label", "c has no image"]


@pytest.mark.parametrize(
    "stem,expected",
    [
        ("GOPR0351_frame_000012_rgb_anon", ("GOPR0351", 12)),
        ("GP010376_frame_000001", ("GP010376", 1)),
        ("GOPR0364_frame_000005_ref_GOPR0360_frame_000071", ("GOPR0364", 5)),
        ("01_frame_0555", ("01", 555)),
        ("holiday", ("", -1)),
    ],
)
def test_parse_frame(stem, expected):
    assert layouts.parse_frame(stem) == expected
