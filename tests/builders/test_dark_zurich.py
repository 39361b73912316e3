"""Dark Zurich: GP drives, shared day frames, references, invalid masks, partial copies."""

import shutil

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.prepare.layouts import Tree
from tests.helpers import miniature
from tests.helpers.places import REAL_DATA


def test_pairs_follow_the_csv_files(tmp_path, prepare, read):
    miniature.make_dark_zurich(tmp_path / "Dark_Zurich")
    builder = prepare("dark_zurich", "pairs", tmp_path)
    records = read(builder, "train")
    assert {record["image_id"]: record["reference_id"] for record in records} == {
        "GOPR0351_frame_000001": "GOPR0345_frame_000081",
        "GOPR0351_frame_000002": "GOPR0345_frame_000081",
        "GP010376_frame_000001": "GP010374_frame_000001",
    }
    assert np.array_equal(records[0]["reference"], records[1]["reference"])
    assert np.array_equal(records[2]["reference"], miniature.scene(1))
    assert records[0]["gps"].tolist() == [47.123456789, 8.5] and records[2]["sequence"] == "GP010376"
    assert "label" not in builder.info.features
    assert any("1 of 3 pairs" in note for note in builder.info.metadata["notes"])


def test_pairs_from_the_flat_list(tmp_path, prepare, read):
    miniature.make_dark_zurich(tmp_path)
    rows = [path.read_text() for path in sorted((tmp_path / "corresp").rglob("*.csv"))]
    shutil.rmtree(tmp_path / "corresp")
    with pytest.raises(UserError, match="zurich_dn_pair_train.csv"):
        prepare("dark_zurich", "pairs", tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/zurich_dn_pair_train.csv").write_text("".join(rows))
    builder = prepare("dark_zurich", "pairs", tmp_path)
    assert len(read(builder, "train")) == 3
    assert "zurich_dn_pair_train.csv" in builder.info.metadata["label_version"]


def test_pair_without_its_day_image_is_named(tmp_path, prepare, read):
    miniature.make_dark_zurich(tmp_path)
    shutil.rmtree(tmp_path / "rgb_anon/train/day/GP010374")
    builder = prepare("dark_zurich", "pairs", tmp_path)
    assert len(read(builder, "train")) == 2
    assert "GP010374_frame_000001 is missing" in builder.info.metadata["unmatched"][0]


@pytest.mark.parametrize("condition,count", [("night", 3), ("twilight", 1), ("day", 2)])
def test_single_conditions(tmp_path, prepare, read, condition, count):
    miniature.make_dark_zurich(tmp_path)
    builder = prepare("dark_zurich", condition, tmp_path)
    records = read(builder, "train")
    assert len(records) == count
    assert {builder.info.features["condition"].int2str(record["condition"]) for record in records} == {condition}


def test_validation_has_reference_and_invalid_mask(tmp_path, prepare, read):
    expected = miniature.make_dark_zurich(tmp_path)
    (record,) = read(prepare("dark_zurich", "val", tmp_path), "validation")
    assert np.array_equal(record["label"][..., 0], expected["GOPR0356_frame_000321"])
    assert np.array_equal(record["reference"], miniature.scene(7)) and record["reference_id"].endswith("_ref")
    invalid = record["invalid"][..., 0]
    assert set(np.unique(invalid)) == {0, 1} and invalid.mean() == 0.25
    assert (record["label"][..., 0][invalid == 1] != 255).any()  # invalid, yet labeled


def test_test_references_are_matched_by_prefix(tmp_path, prepare, read):
    miniature.make_dark_zurich(tmp_path)
    records = read(prepare("dark_zurich", "test", tmp_path), "test")
    assert [record["sequence"] for record in records] == ["GOPR0364", "GP010364"]
    assert np.array_equal(records[1]["reference"], miniature.scene(9))


def test_each_zip_in_a_folder_of_its_own(tmp_path, prepare, read):
    miniature.make_dark_zurich(tmp_path / "all")
    for part, folders in {"train": ("train",), "val": ("val", "val_ref")}.items():
        for folder in folders:
            target = tmp_path / f"own/Dark_Zurich_{part}_anon/rgb_anon/{folder}"
            shutil.copytree(tmp_path / f"all/rgb_anon/{folder}", target)
    shutil.copytree(tmp_path / "all/gt", tmp_path / "own/Dark_Zurich_val_anon/gt")
    shutil.copytree(tmp_path / "all/corresp", tmp_path / "own/Dark_Zurich_train_anon/corresp")
    assert len(read(prepare("dark_zurich", "pairs", tmp_path / "own"), "train")) == 3
    assert len(read(prepare("dark_zurich", "val", tmp_path / "own"), "validation")) == 1


def test_partial_copy_says_what_is_missing(tmp_path, prepare):
    miniature.make_dark_zurich(tmp_path)
    shutil.rmtree(tmp_path / "rgb_anon/train")
    assert prepare("dark_zurich", "val", tmp_path).info.splits["validation"].num_examples == 1
    with pytest.raises(UserError, match="nothing for config night"):
        prepare("dark_zurich", "night", tmp_path)


@pytest.mark.skipif(not (REAL_DATA / "lists").is_dir(), reason="NIGHTJAX_SHARED_DATA has no lists folder")
def test_published_pair_list():
    from tfds_builders.dark_zurich.dark_zurich_dataset_builder import pair_table

    notes = []
    table, _ = pair_table(Tree((REAL_DATA / "lists",)), "night", notes)
    days = list(table.values())
    assert (len(table), len(set(days)), max(map(days.count, set(days))), notes) == (
        2416,
        1426,
        70,
        [],
    )


@pytest.mark.skipif(
    not (REAL_DATA / "dark_zurich_pair").is_dir(),
    reason="NIGHTJAX_SHARED_DATA has no dark_zurich_pair",
)
def test_real_pair(tmp_path, prepare, read):
    day, twilight = "GOPR0374_frame_000801", "GP010375_frame_000036"
    for condition, stem in (("day", day), ("twilight", twilight)):
        folder = tmp_path / f"rgb_anon/train/{condition}/{stem.split('_')[0]}"
        folder.mkdir(parents=True)
        (folder / f"{stem}_rgb_anon.png").symlink_to(REAL_DATA / f"dark_zurich_pair/{stem}_rgb_anon.png")
    (tmp_path / "corresp/train/twilight/GP010375").mkdir(parents=True)
    row = f"train/twilight/GP010375/{twilight},train/day/GOPR0374/{day}\n"
    (tmp_path / "corresp/train/twilight/GP010375/GP010375_ref_day.csv").write_text(row)
    (record,) = read(prepare("dark_zurich", "twilight_pairs", tmp_path), "train")
    assert record["image"].shape == record["reference"].shape == (1080, 1920, 3)
    assert (record["image_id"], record["reference_id"]) == (twilight, day)
    assert record["image"].mean() < record["reference"].mean()
