"""``python -m nightjax.submit``: from a run to a package that passes, and checking others' packages."""

import pathlib
import shutil
import zipfile

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from nightjax import submit
from nightjax.core.errors import UserError
from nightjax.inference.package_check import check_package
from nightjax.inference.submission import PACKAGES
from nightjax.train import train
from nightjax.zoo import benchmarks
from tests.helpers import toy
from tests.helpers.places import REAL_DATA

FRAMES = ("GOPR0364_frame_000001", "GP010364_frame_000002")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An untrained run and a folder of two images with the names of Dark Zurich's test set."""
    root = tmp_path_factory.mktemp("submit")
    data = toy.write_folder(root / "data", split="test", count=2)
    for index, frame in enumerate(FRAMES):
        (data / "images" / "test" / f"frame_{index:02d}.png").rename(data / "images" / "test" / f"{frame}_rgb_anon.png")
    shutil.rmtree(data / "labels")
    trained = toy.write_folder(root / "trained", count=2)
    return toy.untrained_run(root / "run", toy.config(trained)), data


def test_table_of_tests():
    assert set(submit.TESTS) == set(PACKAGES)
    assert all(name in benchmarks.EVAL_SETS for _, name in submit.TESTS.values())


def test_writes_a_package_that_passes(world, tmp_path, capsys):
    run, data = world
    command = f"submit --benchmark=dark_zurich --workdir={run} --output={tmp_path}/out --dataset=folder:{data}"
    command += " --invalid_below=0.2"
    submit.main(command.split())
    assert "no fault found" in capsys.readouterr().out
    assert check_package(tmp_path / "out.zip", "dark_zurich", FRAMES) == []
    name = f"{FRAMES[0]}_rgb_anon.png"
    label, declined, confidence = (
        cv2.imread(str(tmp_path / "out" / part / name), cv2.IMREAD_UNCHANGED)
        for part in PACKAGES["dark_zurich"].folders
    )
    assert label.shape == (1080, 1920) and confidence.dtype == np.uint16
    assert 65535 / 19 < confidence.min() < confidence.max()  # the probability of the best of 19 classes
    away_from_edge = np.abs(confidence / 65535 - 0.2) > 1e-4
    np.testing.assert_array_equal((declined == 255)[away_from_edge], (confidence / 65535 < 0.2)[away_from_edge])
    with pytest.raises(UserError, match="is not empty"):
        submit.main(command.split())


def test_checks_a_strangers_package(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
        picture = cv2.imencode(".png", np.zeros((1080, 1920, 3), np.uint8))[1].tobytes()
        archive.writestr(f"labelTrainIds/{FRAMES[0]}_rgb_anon.png", picture)
    with pytest.raises(SystemExit) as stop:
        submit.main(["submit", "--benchmark=acdc", f"--check={tmp_path}/theirs.zip"])
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["missing file", "color image"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--benchmark=acdc", "--workdir is missing"),
        ("--benchmark=acdc --workdir=nowhere", "--output is missing"),
        ("--benchmark=acdc --workdir=nowhere --output=out", "holds no run"),
        ("--benchmark=adcd --check=x", "did you mean 'acdc'"),
        ("--benchmark=acdc --workdir=x --output=y --protocol=z", "evaluation set='z' is unknown"),
        ("", "--benchmark is missing"),
    ],
)
def test_mistakes_are_one_line(flags, message):
    with pytest.raises(UserError, match=message):
        submit.main(["submit", *flags.split()])


def dark_zurich_tree(root):
    """The real pair as the archive holds it; returns its (dark, day) stems."""
    stems = [path.name.removesuffix("_rgb_anon.png") for path in sorted((REAL_DATA / "dark_zurich_pair").glob("*.png"))]
    day, dark = (
        f"train/{condition}/{stem.partition('_')[0]}/{stem}"
        for condition, stem in zip(("day", "twilight"), stems, strict=True)
    )
    for relative, stem in ((day, stems[0]), (dark, stems[1])):
        (root / "rgb_anon" / relative).parent.mkdir(parents=True)
        shutil.copy(
            REAL_DATA / "dark_zurich_pair" / f"{stem}_rgb_anon.png", root / "rgb_anon" / f"{relative}_rgb_anon.png"
        )
    table = root / "corresp" / pathlib.Path(dark).parent / "pairs_ref_day.csv"
    table.parent.mkdir(parents=True)
    table.write_text(f"{dark},{day}\n")
    return stems[1], stems[0]


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="NIGHTJAX_SHARED_DATA names no folder")
def test_real_pieces_from_builder_to_package(tmp_path, capsys):
    """CamVid by day to a Dark Zurich pair: builders, streams, two steps, CamVid's and BDD's scores, and a package."""
    dark, _ = dark_zurich_tree(tmp_path / "zurich")
    benchmark = benchmarks.BENCHMARKS["camvid_day_to_dusk"]
    small = {"resize": (96, 128), "crop": (64, 96)}
    plain = toy.config(REAL_DATA / "camvid", "dsr_fpa", steps=2, data__dir=str(tmp_path / "tfds")).to_dict()
    pairs = {"dataset": f"dark_zurich/twilight_pairs:{tmp_path}/zurich", "split": "train"}
    plain["data"]["streams"] = {
        "source": benchmark["streams"]["source"] | small,
        "target": small | pairs | {"fields": ("image", "reference")},
    }
    bdd = {"dataset": f"bdd100k_seg/full:{REAL_DATA}/bdd100k", "split": "train", "input_size": (180, 320)}
    plain["eval"]["sets"] = benchmark["eval"] | {"bdd": bdd}
    plain["classes"] = {"name": "cityscapes"}  # The server's, and BDD's.
    results = train(ConfigDict(plain), tmp_path / "run")
    assert results["dusk_test"]["label_version"] == "CamVid segnet" and results["dusk_test"]["pixels"] > 1e6
    assert results["bdd"]["label_version"] == "BDD100K masks" and results["bdd"]["pixels"] > 4e6

    night = tmp_path / "night" / "images" / "test"
    night.mkdir(parents=True)
    shutil.copy(REAL_DATA / "dark_zurich_pair" / f"{dark}_rgb_anon.png", night)
    flags = f"--workdir={tmp_path}/run --output={tmp_path}/out --dataset=folder:{tmp_path}/night"
    submit.main(f"submit --benchmark=dark_zurich {flags}".split())
    assert "no fault found" in capsys.readouterr().out
    assert check_package(tmp_path / "out.zip", "dark_zurich", [dark]) == []
