"""Many files in one call, with a predictor that needs no network."""

import json
import os

import cv2
import numpy as np
import pytest
from etils import epath

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import memory_shortage
from nightjax.inference.inputs import find_inputs
from nightjax.inference.many import Predictions
from nightjax.inference.summaries import read_summary, written_names

MADE_BY = {"run": "runs/a", "step": 3, "options": {"flip": False}}


def predict(image):
    """Road on the left, sky on the right."""
    label = np.zeros(image.shape[:2], np.uint8)
    label[:, image.shape[1] // 2 :] = 10
    return label


def write_images(root, *names, size=(8, 12)):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((*size, 3), 99, np.uint8))


def write_video(path, count=7, size=(24, 32)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, size[::-1])
    for i in range(count):
        writer.write(np.full((*size, 3), 20 * i, np.uint8))
    writer.release()


def run(root, output, made_by=MADE_BY, work=predict, frames=False):
    written = written_names(output)
    predictions = Predictions(output, made_by, CITYSCAPES)
    predictions(work, find_inputs([root], output, frames=frames, written=written), 5.0 if frames else 0.0)
    return predictions


def test_a_bad_file_stops_nothing(tmp_path):
    write_images(tmp_path / "in", "a.png", "b.png", "sub/c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    (tmp_path / "in" / "d.mp4").write_bytes(b"no video")
    done = run(tmp_path / "in", tmp_path / "out")
    assert done.count == 2 and set(done.failed) == {"b", "d"}
    assert "b.png is not an image" in done.failed["b"] and "d.mp4 cannot be read as a video" in done.failed["d"]
    label = cv2.imread(str(tmp_path / "out" / "sub" / "c_trainids.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(label, predict(label))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images"]["sub/c"]["shares"] == {"road": 0.5, "sky": 0.5}
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert classes["10"] == {"name": "sky", "color": "#4682b4"}
    assert set(summary["failed"]) == {"b", "d"} and summary["made_by"] == MADE_BY
    legend = cv2.imread(str(tmp_path / "out" / "legend.png"))[..., ::-1]
    assert all((legend == color).all(-1).any() for color in CITYSCAPES.palette)


def test_it_goes_on_where_it_was_stopped(tmp_path):
    write_images(tmp_path / "in", *(f"{i}.png" for i in range(5)))
    calls = []

    def stopping(image):
        calls.append(image)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(image)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", work=stopping)
    (tmp_path / "out" / "summary.json").write_text(
        json.dumps({"made_by": MADE_BY, "images": {}, "videos": {}, "failed": {}})
    )
    (tmp_path / "out" / "0_overlay.jpg").unlink()
    calls += [None] * 3
    done = run(tmp_path / "in", tmp_path / "out", {**MADE_BY, "run": "moved/a"}, stopping)
    assert done.before == 1 and done.count == 5 and len(calls) == 3 + 3 + 4
    assert read_summary(tmp_path / "out")["images"]["1"]["shares"] == {"road": 0.5, "sky": 0.5}


def test_several_processes_share_the_images(tmp_path):
    write_images(tmp_path / "in", *(f"{i}.png" for i in range(5)))
    (tmp_path / "in" / "3.png").write_bytes(b"no image")
    write_video(tmp_path / "in" / "drive.mp4")
    seen = []

    def part(number):
        inputs = find_inputs([tmp_path / "in"], tmp_path / "out")
        predictions = Predictions(tmp_path / "out", MADE_BY | {"run": f"host{number}/a"}, CITYSCAPES, (number, 2))
        predictions(lambda image: [seen.append(number), predict(image)][1], inputs)
        return predictions

    first = part(0)
    assert not first.is_whole and first.count == 3 and not (tmp_path / "out" / "summary.json").exists()
    assert sorted(written_names(tmp_path / "out") or ()) == ["0", "2", "4"]
    second = part(1)
    assert second.is_whole and set(second.failed) == {"3"}
    shared = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert not list((tmp_path / "out").glob("summary_*"))
    alone = run(tmp_path / "in", tmp_path / "alone")
    expected = json.loads((tmp_path / "alone" / "summary.json").read_text())
    same = lambda content: {kind: dict(sorted(content[kind].items())) for kind in ("images", "videos", "failed")}
    assert same(shared) == same(expected) and alone.count == 5

    count = len(seen)
    assert not part(1).is_whole and part(0).is_whole and len(seen) == count  # Nothing is done again.
    assert run(tmp_path / "in", tmp_path / "out").before == 5


@pytest.mark.parametrize("made_by", [[1], "x"])
def test_a_damaged_summary_is_none(made_by, tmp_path):
    content = {"made_by": made_by, "images": {}, "videos": {}, "failed": {}}
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert read_summary(tmp_path) == {} and written_names(tmp_path) is None


def test_parts_replace_what_another_network_made(tmp_path):
    write_images(tmp_path / "in", "a.png", "b.png")
    run(tmp_path / "in", tmp_path / "out", MADE_BY | {"step": 2})
    for number in range(2):
        inputs = find_inputs([tmp_path / "in"], tmp_path / "out")
        Predictions(tmp_path / "out", MADE_BY, CITYSCAPES, (number, 2))(predict, inputs)
        assert (tmp_path / "out" / "summary.json").exists() == (number == 1)
    assert read_summary(tmp_path / "out")["made_by"] == MADE_BY


def test_what_another_network_made_or_of_an_older_image_is_made_again(tmp_path, capsys):
    write_images(tmp_path / "in", "a.png", "b.png")
    run(tmp_path / "in", tmp_path / "out")
    assert run(tmp_path / "in", tmp_path / "out").before == 2
    os.utime(tmp_path / "in" / "a.png", (2e9, 2e9))
    assert run(tmp_path / "in", tmp_path / "out").before == 1
    assert "again" not in capsys.readouterr().out
    assert run(tmp_path / "in", tmp_path / "out", MADE_BY | {"step": 4}).before == 0
    assert "they are replaced" in capsys.readouterr().out


def test_an_interruption_does_not_mix_two_networks(tmp_path):
    write_images(tmp_path / "in", *(f"{i}.png" for i in range(3)))
    write_video(tmp_path / "in" / "drive.mp4")
    run(tmp_path / "in", tmp_path / "out")
    calls = []

    def other(image):
        calls.append(image)
        if len(calls) in (2, 7):
            raise KeyboardInterrupt
        return np.full(image.shape[:2], 7, np.uint8)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "in", tmp_path / "out", MADE_BY | {"step": 4}, other)
    done = run(tmp_path / "in", tmp_path / "out", MADE_BY | {"step": 4}, other)
    assert done.before == 3 and len(calls) == 2 + (2 + 3) + (7 - 2)
    summary = read_summary(tmp_path / "out")
    assert all(facts["shares"] == {"traffic sign": 1.0} for facts in summary["images"].values())
    assert summary["videos"]["drive"]["shares"] == {"traffic sign": 1.0}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 88473600000 bytes.")]
)
def test_an_image_too_large_for_the_memory_is_named_and_the_others_are_done(tmp_path, error):
    write_images(tmp_path / "in", "a.png", "c.png")
    write_images(tmp_path / "in", "b.png", size=(50, 50))

    def hungry(image):
        if len(image) == 50:
            raise error
        return predict(image)

    done = run(tmp_path / "in", tmp_path / "out", work=hungry)
    assert done.count == 2
    assert "b.png" in done.failed["b"] and "memory ran out" in done.failed["b"] and "--size" in done.failed["b"]
    assert ("88.5 GB" in done.failed["b"]) == isinstance(error, RuntimeError)


def test_defects_of_ours_are_not_blamed_on_images(tmp_path):
    write_images(tmp_path / "in", "a.png")

    def broken(image):
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        run(tmp_path / "in", tmp_path / "out", work=broken)
    assert memory_shortage(RuntimeError("a defect")) is None


def test_a_video_becomes_masks_and_an_overlay(tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "drive.mp4")
    done = run(tmp_path / "in", tmp_path / "out")
    assert not done.failed and done.count == 1
    masks = sorted(path.name for path in (tmp_path / "out" / "drive_trainids").iterdir())
    assert masks == [f"{i:06d}.png" for i in range(7)]
    overlay = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert overlay.get(cv2.CAP_PROP_FPS) == 10 and overlay.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert (overlay.get(cv2.CAP_PROP_FRAME_WIDTH), overlay.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (32, 24)
    facts = read_summary(tmp_path / "out")["videos"]["drive"]
    assert facts["frames"] == 7 and facts["shares"] == {"road": 0.5, "sky": 0.5}
    assert run(tmp_path / "in", tmp_path / "out").before == 1


def test_a_video_goes_on_where_it_was_stopped(tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "drive.mp4", count=9)
    calls = []

    def stopping(image):
        calls.append(image)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return predict(image)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", work=stopping)
    assert len(list((tmp_path / "out" / "drive_trainids").glob("*.png"))) == 4
    assert not (tmp_path / "out" / "drive_overlay.mp4").exists()
    done = run(tmp_path / "in", tmp_path / "out", work=stopping)
    assert done.count == 1 and not done.failed and len(calls) == 5 + 5
    overlay = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert overlay.get(cv2.CAP_PROP_FRAME_COUNT) == 9
    assert read_summary(tmp_path / "out")["videos"]["drive"]["frames"] == 9


def test_every_video_is_smoothed_by_itself_and_from_its_start(tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", count=4)
    write_video(tmp_path / "in" / "b.mp4", count=3)
    write_images(tmp_path / "in", "c.png")
    made = []

    class Counting:
        def __init__(self):
            self.frames = 0
            made.append(self)

        def __call__(self, image):
            self.frames += 1
            return np.full(image.shape[:2], self.frames, np.uint8)

    for _ in range(2):
        predictions = Predictions(tmp_path / "out", MADE_BY, CITYSCAPES)
        predictions(predict, find_inputs([tmp_path / "in"], tmp_path / "out", written=[]), smoother=Counting)
        (tmp_path / "out" / "a_overlay.mp4").unlink()
    assert [one.frames for one in made] == [4, 3, 4]
    last = cv2.imread(str(tmp_path / "out" / "b_trainids" / "000002.png"), cv2.IMREAD_UNCHANGED)
    assert (last == 3).all()


def test_numbered_frames_become_a_video_without_those_that_are_bad(tmp_path):
    write_images(tmp_path / "in", *(f"f{i}.png" for i in range(12)), size=(9, 11))
    (tmp_path / "in" / "f3.png").write_bytes(b"no image")
    done = run(tmp_path / "in", tmp_path / "out", frames=True)
    assert "1 of 12 frames left out" in done.failed["in"] and "f3.png" in done.failed["in"]
    overlay = cv2.VideoCapture(str(tmp_path / "out" / "in_overlay.mp4"))
    assert overlay.get(cv2.CAP_PROP_FRAME_COUNT) == 11 and overlay.get(cv2.CAP_PROP_FPS) == 5
    assert len(list((tmp_path / "out" / "in_trainids").iterdir())) == 11


def test_a_disk_that_is_full_stops_at_once(tmp_path):
    write_images(tmp_path / "in", "a.png")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError):
        Predictions(epath.Path(tmp_path / "out"), MADE_BY, CITYSCAPES)(predict, find_inputs([tmp_path / "in"], ""))


def test_a_video_that_was_cut_off_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(60):
        writer.write(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = run(tmp_path / "in", tmp_path / "out")
    assert "drive.avi" in done.failed["drive"] and "frames" in done.failed["drive"], done.failed
