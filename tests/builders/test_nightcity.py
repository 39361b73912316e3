"""NightCity: three label versions, labels of twice the size, the frame that moved."""

import numpy as np
import pytest

from nightjax.prepare import layouts
from tests.helpers import miniature
from tfds_builders.nightcity import nightcity_dataset_builder as nightcity


@pytest.mark.parametrize("version", ["original", "plus", "fine"])
def test_versions_read_back_exactly(tmp_path, prepare, read, version):
    expected = miniature.make_nightcity(tmp_path / "NightCity")
    builder = prepare("nightcity", version, tmp_path)
    records = read(builder, "train") + read(builder, "validation")
    assert [record["image_id"] for record in records] == [
        "Chicago_0049",
        "Dubai_0016",
        "Tokyo_0003",
    ]
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]][version])
    assert "Dubai_0016 is in train: the corrected upload" in builder.info.metadata["notes"][0]


def test_early_upload_is_recognized(tmp_path, prepare):
    miniature.make_nightcity(tmp_path)
    for folder, name in (
        ("NightCity-images/images", "Dubai_0016.png"),
        ("NightCity-label/label", "Dubai_0016_labelIds.png"),
    ):
        (tmp_path / folder / "train" / name).rename(tmp_path / folder / "val" / name)
    report = prepare("nightcity", "original", tmp_path).info.metadata
    assert "early upload" in report["notes"][0] and report["splits"]["validation"]["images"] == 2


def test_self_converted_layout(tmp_path, prepare, read):
    label = miniature.train_ids(3)
    miniature.save(tmp_path / "img/train/Lima_0001.png", miniature.scene(3))
    miniature.save(tmp_path / "gt/train/Lima_0001_labelTrainIds.png", label)
    (record,) = read(prepare("nightcity", "original", tmp_path), "train")
    assert np.array_equal(record["label"][..., 0], label)


def test_a_surplus_label_of_nightcity_plus_makes_no_example(tmp_path):
    """The upload has a val label whose image is in train."""
    images = ("images/train/Dubai_0016", "images/val/Tokyo_0003")
    labels = (
        "label/train/Dubai_0016_labelIds",
        "NightCity+/val/Dubai_0016_labelIds",
        "NightCity+/val/Tokyo_0003_labelIds",
    )
    for name in (*images, *labels):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    scan = nightcity.Builder(config="plus", data_dir=tmp_path).scan(layouts.Tree((tmp_path,)))
    assert {name: [record.image_id for record in split] for name, split in scan.splits.items()} == {
        "train": ["Dubai_0016"],
        "validation": ["Tokyo_0003"],
    }
    assert scan.unmatched == ["Dubai_0016 has no image"]
