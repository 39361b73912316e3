"""The tables of data sets that installed packages offer, and the builders as TFDS finds them from outside."""

import subprocess
import sys
from importlib import metadata

import cv2
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.data import datasets
from nightjax.data.sources import open_source
from tests.helpers.places import ROOT


@pytest.fixture
def offered(monkeypatch):
    """``offered("package:TABLE", ...)`` replaces what is installed."""

    def install(*values):
        points = [metadata.EntryPoint(f"name{i}", value, datasets.GROUP) for i, value in enumerate(values)]
        monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == datasets.GROUP else [])
        datasets.builder_modules.cache_clear()

    yield install
    monkeypatch.undo()
    datasets.builder_modules.cache_clear()


def test_every_builder_is_in_the_table():
    files = (ROOT / "tfds_builders").glob("*/*_dataset_builder.py")
    found = {path.stem.removesuffix("_dataset_builder"): path for path in files}
    assert datasets.builder_modules() == {name: f"tfds_builders.{name}.{path.stem}" for name, path in found.items()}


def test_the_library_does_not_name_the_builders_package():
    for path in (ROOT / "nightjax").rglob("*.py"):
        assert "tfds_builders" not in path.read_text(), path


def test_without_installation_it_is_said_what_to_do(offered, tmp_path):
    offered()
    with pytest.raises(UserError, match=r"^no package offers data sets .*run pip install -e \. in the clone.*$"):
        open_source("camvid", "day", data_dir=str(tmp_path))


def test_other_packages_add_theirs(offered, monkeypatch, tmp_path):
    (tmp_path / "more_builders.py").write_text("BUILDERS = {'kitti_night': 'more_builders.kitti_night'}")
    monkeypatch.syspath_prepend(tmp_path)
    offered("tfds_builders:BUILDERS", "more_builders:BUILDERS")
    table = datasets.builder_modules()
    assert table["kitti_night"] == "more_builders.kitti_night" and "camvid" in table


def test_tables_that_cannot_be_used(offered, monkeypatch, tmp_path):
    (tmp_path / "other_builders.py").write_text("BUILDERS = {'camvid': 'other_builders.camvid'}")
    monkeypatch.syspath_prepend(tmp_path)
    offered("tfds_builders:BUILDERS", "other_builders:BUILDERS")
    with pytest.raises(UserError, match="'camvid' is offered by tfds_builders.camvid.* and by other_builders.camvid"):
        datasets.builder_modules()
    for value in ("not_there:BUILDERS", "other_builders:TABLE"):
        offered(value)
        with pytest.raises(UserError, match=f"cannot load the data sets of {value}.*install its package again"):
            datasets.builder_modules()


IMPORT = """
import sys
import tfds_builders
assert not {"jax", "flax", "nightjax"} & set(sys.modules)
assert not any(name.endswith("_dataset_builder") and "tfds_builders" in name for name in sys.modules)
import tensorflow_datasets as tfds
"""

CAMVID = (
    IMPORT
    + """
tfds.builder("camvid/segnet").download_and_prepare()
day = tfds.data_source("camvid/segnet", split="dusk_train")
assert len(day) == 2 and day[0]["image"].shape == (8, 12, 3) and (day[1]["label"] == 2).all()
assert tfds.builder("camvid").info.file_format.value == "array_record"
tfds.builder("camvid").download_and_prepare()
assert [name for name in sys.modules if name.endswith("_dataset_builder") and "tfds_builders" in name] == [
    "tfds_builders.camvid.camvid_dataset_builder"
]
"""
)

NIGHTSTREET = (
    IMPORT
    + """
import pickle
builder = pickle.loads(pickle.dumps(tfds.builder("nightstreet/tiny_unlabeled")))
builder.download_and_prepare()
twilight = tfds.data_source("nightstreet/tiny_unlabeled", split="target_twilight")
assert len(twilight) == 8 and twilight[7]["image"].shape == (64, 128, 3)
try:
    tfds.builder("nightstreet/tiny", file_format="tfrecord")
except ValueError as error:
    raise AssertionError("another format can be asked for") from error
"""
)


@pytest.mark.parametrize("code", [CAMVID, NIGHTSTREET], ids=["camvid", "nightstreet"])
def test_tfds_finds_the_builders_without_tensorflow(code, tmp_path):
    """Prepared and read in a process of its own in which TensorFlow cannot be imported."""
    camvid = tmp_path / "downloads" / "manual" / "CamVid"
    for stem in ("0001TP_006690", "0001TP_006720"):
        for folder, array in (("train", np.zeros((8, 12, 3), np.uint8)), ("trainannot", np.ones((8, 12), np.uint8))):
            (camvid / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(camvid / folder / f"{stem}.png"), array)
    # TFDS asks whether "tensorflow" is in sys.modules, so None there would mean that it is.
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "tensorflow.py").write_text("raise ImportError('TensorFlow was imported')")
    environment = {
        "TFDS_DATA_DIR": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{tmp_path}/blocked",
        "HOME": str(tmp_path),
        "PATH": "",
    }
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
