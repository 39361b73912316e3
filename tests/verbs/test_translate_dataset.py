"""A translated data set: the same bytes however it was made, its labels and facts, and its use in a config."""

import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from nightjax import translate
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.data import sources, transforms
from nightjax.inference.translators import checksum
from nightjax.prepare.translated import Translation
from nightjax.run import loaded
from nightjax.train import train
from tests.helpers import toy, toy_translator

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("day"), count=COUNT)


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    return toy.untrained_run(tmp_path_factory.mktemp("run") / "unit", toy_translator.config(folder))


@pytest.fixture(autouse=True)
def no_cache_in_home(monkeypatch):
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


def flags(workdir, folder, data_dir, *more):
    base = [f"--workdir={workdir}"] if workdir else [f"--fda=folder:{folder}", "--fda_split=train"]
    base += ["--data=folder", f"--manual_dir={folder}", "--split=all", "--name=night", f"--data_dir={data_dir}"]
    return ["translate", *base, *more]


def make(*args):
    translate.main(flags(*args))


@pytest.fixture(scope="module")
def straight(workdir, folder, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "use_compilation_cache", lambda: None)
        make(workdir, folder, data_dir)
    return data_dir


def contents(data_dir):
    """All that was written; the counts of classes are a reader's cache."""
    root = data_dir / "translated"
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and "class_pixels" not in path.name]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_records_are_the_days_with_other_pictures(straight, folder):
    days = sources.open_source("folder", "all", manual_dir=str(folder))
    nights = sources.open_source("translated/night", "train", data_dir=str(straight))
    assert len(nights) == len(days) == COUNT
    for day, night in zip((days[i] for i in range(COUNT)), (nights[i] for i in range(COUNT)), strict=True):
        assert night["image_id"] == day["image_id"] and night["condition"] == 2
        one, other = (transforms.decode(record, ("image", "label")) for record in (day, night))
        np.testing.assert_array_equal(one["label"], other["label"])
        assert one["image"].shape == other["image"].shape and (one["image"] != other["image"]).any()
    np.testing.assert_array_equal(nights.class_pixels(), days.class_pixels())
    assert nights.label_version == days.label_version


def test_provenance(straight, workdir):
    metadata = json.loads((straight / "translated/night/1.0.0/metadata.json").read_text())
    made_by = metadata["provenance"]["made_by"]
    assert made_by["method"] == "unit" and made_by["step"] == 0 and made_by["to"] == "night"
    variables = loaded.load(workdir).variables
    assert made_by["sha256"] == checksum(variables) and len(made_by["sha256"]) == 64
    assert metadata["provenance"]["splits"]["train"]["records"] == COUNT
    assert len(metadata["record_names"]["train"]) == 64
    assert not list((straight / "translated").glob("*.unfinished"))


class Killed(BaseException):
    pass


def test_killed_in_the_middle_and_started_again_gives_the_same_bytes(straight, workdir, folder, tmp_path, monkeypatch):
    write, done = Translation.write_image, []

    def write_some(self, split, index, image):
        if len(done) == COUNT // 2:  # Killed while this image is half written.
            draft = self._image(split, index)
            draft.with_name(f".{draft.name}.1").write_bytes(b"half an imag")
            raise Killed
        done.append(index)
        write(self, split, index, image)

    with monkeypatch.context() as patch:
        patch.setattr(Translation, "write_image", write_some)
        with pytest.raises(Killed):
            make(workdir, folder, tmp_path)
    assert len(list(tmp_path.rglob("*.unfinished/train/0*.png"))) == COUNT // 2
    draft = tmp_path / "translated/night/incomplete.ABC123_1.0.0"  # As if killed while writing the records.
    draft.mkdir(parents=True)
    (draft / "translated-train.array_record-00000-of-00001").write_bytes(b"half a record")
    again = []
    monkeypatch.setattr(
        Translation,
        "write_image",
        lambda self, split, index, image: (again.append(index), write(self, split, index, image)),
    )
    make(workdir, folder, tmp_path)
    assert sorted(done + again) == list(range(COUNT))
    assert contents(tmp_path) == contents(straight)


def test_parts_of_several_processes_are_the_whole(straight, workdir, folder, tmp_path, capsys):
    make(workdir, folder, tmp_path, "--shard=1/2")
    assert f"{COUNT // 2} images of other parts are missing" in capsys.readouterr().out
    make(workdir, folder, tmp_path, "--shard=0/2")
    assert "is ready" in capsys.readouterr().out
    assert contents(tmp_path) == contents(straight)
    make(workdir, folder, tmp_path)  # All done: nothing happens.
    assert contents(tmp_path) == contents(straight)


def test_another_translator_is_refused(straight, workdir, folder):
    with pytest.raises(UserError, match="made_by=.*--name"):
        make(workdir, folder, straight, "--to=day")
    with pytest.raises(UserError, match="was made with made_by="):
        make(None, folder, straight)


def test_fourier_adaptation(folder, tmp_path):
    make(None, folder, tmp_path, "--beta=0.1")
    nights = sources.open_source("translated/night", "train", data_dir=str(tmp_path))
    days = sources.open_source("folder", "all", manual_dir=str(folder))
    pairs = [[transforms.decode(s[i], ("image",))["image"] for s in (days, nights)] for i in range(COUNT)]
    assert all(day.shape == night.shape for day, night in pairs)
    assert any((day != night).any() for day, night in pairs)


def test_network_size_and_stretch(workdir, folder, tmp_path):
    make(workdir, folder, tmp_path, "--size=16,24", "--stretch")
    night = sources.open_source("translated/night", "train", data_dir=str(tmp_path))[0]
    picture = cv2.imdecode(np.frombuffer(night["image"], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (*toy.SIZE, 3) and picture.max() - picture.min() > 100


def test_a_supervised_run_trains_on_days_and_translated_nights(straight, folder, tmp_path):
    changes = {"data__streams__source__dataset": "translated/night", "eval__sets__val": None}
    config = toy.config(folder, steps=2, data__dir=str(straight), **changes)
    assert train(config, tmp_path / "nights") == {}
    joined = sources.open_source("translated/night+translated/night", "train", data_dir=str(straight))
    assert len(joined) == 2 * COUNT


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--shard=2/2",), "--shard=2/2 must look like 0/4"),
        (("--size=16",), "--size=16 must be"),
        (("--fda=folder",), "either --workdir"),
        (("--name=a/b",), "'a/b' is no name"),
    ],
)
def test_wrong_flags(workdir, folder, tmp_path, more, words):
    with pytest.raises(UserError, match=words):
        make(workdir, folder, tmp_path, *more)


def test_a_run_that_translates_nothing(folder, tmp_path):
    other = toy.untrained_run(tmp_path / "source", toy.config(folder))
    with pytest.raises(UserError, match="translation.*segmentation"):
        make(other, folder, tmp_path)


def test_unknown_translated_set(straight):
    with pytest.raises(UserError, match="did you mean 'night'"):
        sources.open_source("translated/nigth", "train", data_dir=str(straight))


@pytest.mark.slow
def test_processes_killed_for_real(straight, workdir, folder, tmp_path):
    """SIGKILL after the second image, then to the end, in processes of their own."""
    command = [sys.executable, "-m", "nightjax.translate", *flags(workdir, folder, tmp_path)[1:]]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.rglob("*.unfinished/train/0*.png"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert contents(tmp_path) == contents(straight)
