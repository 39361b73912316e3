"""CamVid in both layouts, made small, and the real files where they are at hand."""

import cv2
import numpy as np
import pytest

from nightjax.core.class_merges import CAMVID_11
from nightjax.core.errors import UserError
from nightjax.data import labels, transforms
from nightjax.data.sources import open_source
from tests.helpers.places import REAL_DATA

STEMS = {
    "day": ("0006R0_f00930", "0006R0_f00960", "0016E5_00390"),
    "day_test": ("Seq05VD_f00000",),
    "dusk_train": ("0001TP_006690", "0001TP_008520"),
    "dusk_test": ("0001TP_008550",),
}
SEGNET_FOLDER = {"day": "train", "day_test": "test", "dusk_train": "train", "dusk_test": "test"}
COLORS = list(labels.CAMVID_32)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def class_ids(seed):
    return np.random.default_rng(seed).integers(0, 12, (12, 16), np.uint8)


def color_names(seed):
    return np.random.default_rng(seed).integers(0, len(COLORS), (12, 16))


def photo(seed):
    return np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)


def numbered():
    return enumerate((split, stem) for split, stems in STEMS.items() for stem in stems)


@pytest.fixture
def segnet(tmp_path):
    root = tmp_path / "manual" / "CamVid"
    for seed, (split, stem) in numbered():
        folder = SEGNET_FOLDER[split] if stem != "0016E5_00390" else "val"
        write(root / folder / f"{stem}.png", photo(seed))
        write(root / f"{folder}annot" / f"{stem}.png", class_ids(seed))
    listed = "/SegNet/CamVid/train/0006R0_f00930.png /SegNet/CamVid/trainannot/0006R0_f00930.png\n"
    (root / "train.txt").write_text(listed)
    return tmp_path / "manual"


def official(root, photos, annotations):
    palette = np.array([labels.CAMVID_32[name][0] for name in COLORS], np.uint8)
    for seed, (_, stem) in numbered():
        write(root / photos / f"{stem}.png", photo(seed))
        write(root / annotations / f"{stem}_L.png", palette[color_names(seed)])


def read(name, split, manual_dir, tmp_path):
    source = open_source(name, split, data_dir=str(tmp_path / "tfds"), manual_dir=str(manual_dir))
    return source, [source[i] for i in range(len(source))]


def test_segnet_layout(segnet, tmp_path):
    seed = 0
    for split, stems in STEMS.items():
        source, records = read("camvid", split, segnet, tmp_path)
        assert [record["image_id"] for record in records] == sorted(stems)
        for stem in stems:
            record = records[sorted(stems).index(stem)]
            example = transforms.decode(record, ("image", "label"))
            np.testing.assert_array_equal(example["image"], photo(seed))
            np.testing.assert_array_equal(example["label"], labels.CAMVID_ID_TO_TRAIN_ID[class_ids(seed)])
            assert record["sequence"] == stem.split("_")[0] and record["frame"] == int(stem.split("_")[1].strip("f"))
            seed += 1
        pixels = np.stack([labels.class_pixels(transforms.decode_label(record["label"])) for record in records])
        np.testing.assert_array_equal(source.class_pixels(), pixels)
        np.testing.assert_array_equal(source.class_pixels(), pixels)  # From the cache.


def test_merged_ids_survive_the_way_through_train_ids():
    """What is stored as one representative is scored as the class it came from."""
    ids = np.arange(12, dtype=np.uint8)
    merged = CAMVID_11.table[labels.CAMVID_ID_TO_TRAIN_ID[ids]]
    np.testing.assert_array_equal(merged, [*range(11), 255])


@pytest.mark.parametrize("folders", [("701_StillsRaw_full", "LabeledApproved_full"), ("train", "train_labels")])
@pytest.mark.parametrize("nested", [True, False])
def test_official_layout(folders, nested, tmp_path):
    manual = tmp_path / "manual"
    official(manual / "camvid" if nested else manual, *folders)
    train_ids = np.array([labels.CAMVID_32[name][1] for name in COLORS], np.uint8)
    seed = 0
    for split, stems in STEMS.items():
        _, records = read("camvid/official", split, manual, tmp_path)
        assert [record["image_id"] for record in records] == sorted(stems)
        for record in records:
            np.testing.assert_array_equal(transforms.decode_label(record["label"]), train_ids[color_names(seed)])
            seed += 1


def test_the_other_layout_is_named(segnet, tmp_path):
    with pytest.raises(UserError, match="use the data set camvid/segnet"):
        read("camvid/official", "day", segnet, tmp_path)
    official(tmp_path / "colors", "701_StillsRaw_full", "LabeledApproved_full")
    with pytest.raises(UserError, match="use the data set camvid/official"):
        read("camvid", "day", tmp_path / "colors", tmp_path)


def test_partial_and_odd_copies(segnet, tmp_path):
    (segnet / "CamVid" / "test" / "Seq05VD_f00000.png").unlink()
    write(segnet / "CamVid" / "train" / "stray.png", photo(0))
    write(segnet / "CamVid" / "trainannot" / "stray.png", class_ids(0))
    assert len(read("camvid", "day", segnet, tmp_path)[0]) == 3
    with pytest.raises(UserError, match="no split 'day_test'.*dusk_test"):
        read("camvid", "day_test", segnet, tmp_path)


def test_no_data_is_a_user_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="(?i)camvid.*manual_dir"):
        read("camvid", "day", "", tmp_path)
    for folder in ("empty", "absent"):
        with pytest.raises(UserError, match="CamVid|camvid"):
            read("camvid", "day", tmp_path / folder, tmp_path)


@pytest.fixture(scope="module")
def shared_camvid():
    folder = REAL_DATA / "camvid"
    if not folder.is_dir():
        pytest.skip(f"no CamVid in {folder}: set NIGHTJAX_SHARED_DATA to the folder that holds camvid/")
    return folder


def test_real_frames(shared_camvid, tmp_path):
    counts = {}
    for split in STEMS:
        source = open_source("camvid", split, data_dir=str(tmp_path), manual_dir=str(shared_camvid))
        counts[split] = len(source)
        share = source.class_pixels().sum(0) / source.class_pixels().sum()
        assert share[[0, 2, 8, 10]].sum() > 0.75  # Road, building, trees and sky cover most of every drive.
        assert share[[3, 6, 9, 12, 14, 15, 16, 17]].sum() == 0  # What the 11 classes do not tell apart.
        example = transforms.decode(source[0], ("image", "label"))
        assert example["image"].shape == (360, 480, 3)
        # Sky is above road.
        rows = np.mgrid[:360, :480][0]
        assert rows[example["label"] == 10].mean() < rows[example["label"] == 0].mean()
    assert counts == {"day": 152, "day_test": 57, "dusk_train": 62, "dusk_test": 20}
