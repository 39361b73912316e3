import os

import pytest

from nightjax.core.errors import UserError
from nightjax.inference.inputs import find_inputs


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_images_and_videos_are_found_and_the_rest_is_counted(tmp_path):
    touch(tmp_path, "z.JPG", "b/a.png", "b/drive.MP4", "b/notes.txt", "b/more.txt", ".hidden.png", "readme")
    found = find_inputs([tmp_path], tmp_path / "out")
    assert {name: path.name for name, path in found.images.items()} == {"b/a": "a.png", "z": "z.JPG"}
    assert {name: [path.name for path in paths] for name, paths in found.videos.items()} == {"b/drive": ["drive.MP4"]}
    assert len(found.passed_over) == 4 and ".txt files (2)" in found.summary() and "editor (1)" in found.summary()


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path):
    touch(tmp_path, "odd.name")
    assert list(find_inputs([tmp_path / "odd.name"], tmp_path / "out").images) == ["odd"]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        find_inputs([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(UserError, match="no image found.*\\.jpg.*\\.mp4"):
        find_inputs([tmp_path], tmp_path)
    touch(tmp_path, "a.png", "a.jpg")
    with pytest.raises(UserError, match="a_\\*.png"):
        find_inputs([tmp_path], tmp_path)


def test_a_link_to_its_own_folder_is_read_once(tmp_path):
    touch(tmp_path, "a.png")
    os.symlink(".", tmp_path / "again")
    assert list(find_inputs([tmp_path], tmp_path / "out").images) == ["a"]


def test_own_results_are_no_inputs(tmp_path):
    touch(tmp_path, "n0.jpg", "n0_color.png", "n0_overlay.jpg", "n0_trainids.png", "my_color.png", "drive.mp4")
    touch(tmp_path, "drive_overlay.mp4", "drive_trainids/000000.png", "gone_color.png")
    found = find_inputs([tmp_path], tmp_path, written=["gone"])
    assert set(found.images) == {"n0", "my_color"} and set(found.videos) == {"drive"}
    assert "results of an earlier prediction (6)" in found.summary()
    assert len(find_inputs([tmp_path], tmp_path / "out").images) == 7
    touch(tmp_path, "legend.png")
    assert "legend" not in find_inputs([tmp_path], tmp_path, written=[]).images
    with pytest.raises(UserError, match="legend.png .*would be overwritten"):
        find_inputs([tmp_path], tmp_path)


def test_numbered_frames_are_one_video_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path / "drive", "f_9.png", "f_10.png", "f_1.png", "rear/r2.png", "rear/r1.png")
    found = find_inputs([tmp_path / "drive"], tmp_path / "out", frames=True)
    assert not found.images
    frames = {name: [path.stem for path in paths] for name, paths in found.videos.items()}
    assert frames == {"drive": ["f_1", "f_9", "f_10"], "drive/rear": ["r1", "r2"]}
