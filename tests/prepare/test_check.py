"""nightjax check: a clean tree passes, each planted fault is found and named."""

import importlib
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nightjax import check as verb
from nightjax.core import cli
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data import folders, transforms
from nightjax.prepare import alignment, check, folder_check
from tests.helpers import miniature

TREES = {
    "cityscapes_seg/full": miniature.make_cityscapes,
    "dark_zurich/pairs": miniature.make_dark_zurich,
    "dark_zurich/val": miniature.make_dark_zurich,
    "acdc/night": miniature.make_acdc,
    "nighttime_driving/corrected": miniature.make_nighttime_driving,
    "bdd100k_seg/full": miniature.make_bdd100k,
    "nightcity/plus": miniature.make_nightcity,
    "nightcity/fine": miniature.make_nightcity,
    "synthia/full": miniature.make_synthia,
}


def faults_of(data, manual_dir, tmp_path):
    """Faults of a data set; the official counts, which a miniature cannot have, are left out."""
    name, config = data.split("/")
    module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
    builder = module.Builder(config=config, data_dir=tmp_path / "scratch", file_format="array_record")
    scan = builder.find(manual_dir, tmp_path / "unpacked")
    return [line for line in check.check_scan(scan, builder.builder_config.recipe) if not line.startswith("count")]


@pytest.mark.parametrize("data", TREES)
def test_clean_trees_have_no_fault(tmp_path, data):
    TREES[data](tmp_path / "data")
    assert faults_of(data, tmp_path / "data", tmp_path) == []


@pytest.fixture
def city(tmp_path):
    miniature.make_cityscapes(tmp_path / "data")
    return tmp_path / "data"


AACHEN = "aachen/aachen_000000_000019"


def one(tmp_path, manual_dir, data="cityscapes_seg/full"):
    (fault,) = faults_of(data, manual_dir, tmp_path)
    return fault


def test_ids_out_of_range(tmp_path, city):
    label = miniature.label_ids(miniature.train_ids(0))
    label[0, 0] = 77
    miniature.save(city / f"gtFine/train/{AACHEN}_gtFine_labelIds.png", label)
    assert one(tmp_path, city).startswith("values: train/aachen_000000_000019: values 77 are no label ids")


def test_train_ids_where_label_ids_are_expected(tmp_path, city):
    miniature.save(city / f"gtFine/train/{AACHEN}_gtFine_labelIds.png", miniature.train_ids(0))
    assert "these look like train ids" in one(tmp_path, city)


def test_label_ids_where_train_ids_are_expected(tmp_path):
    miniature.make_bdd100k(tmp_path / "data")
    mask = tmp_path / "data/labels/sem_seg/masks/val/7d83ed8d-00000000.png"
    miniature.save(mask, miniature.label_ids(miniature.train_ids(2)))
    faults = faults_of("bdd100k_seg/full", tmp_path / "data", tmp_path)
    assert any("these are label ids" in fault for fault in faults)


def test_color_image_as_label(tmp_path, city):

    colors = CITYSCAPES.colorize(miniature.train_ids(0))
    miniature.save(city / f"gtFine/train/{AACHEN}_gtFine_labelIds.png", colors)
    assert "label is a color image" in one(tmp_path, city)


def test_size_mismatch(tmp_path, city):
    miniature.save(
        city / f"gtFine/train/{AACHEN}_gtFine_labelIds.png",
        miniature.label_ids(miniature.train_ids(0, (16, 32))),
    )
    assert one(tmp_path, city) == "size: train/aachen_000000_000019: label is 32x16, its image 64x32"


def test_missing_pair(tmp_path, city):
    (city / f"gtFine/train/{AACHEN}_gtFine_labelIds.png").unlink()
    assert one(tmp_path, city) == "partner: aachen_000000_000019 has no gtFine_labelIds"


def test_missing_reference(tmp_path):
    miniature.make_acdc(tmp_path / "data")
    next((tmp_path / "data/rgb_anon/night/val_ref").rglob("*.png")).unlink()
    assert "has no reference" in one(tmp_path, tmp_path / "data", "acdc/night")


@pytest.mark.parametrize(
    "name",
    [
        "leftImg8bit/train/aachen/notes.db",
        "leftImg8bit/train/aachen/copy.png",
        "gtFine/train/aachen/bonn_1_2_labelIds.png",
    ],
)
def test_extra_file(tmp_path, city, name):
    (city / name).write_bytes(b"x")
    fault = one(tmp_path, city)
    assert fault.startswith("extra file: aachen/") and fault.endswith(pathlib.Path(name).name)


def test_wrong_count(tmp_path, city, capsys):
    assert code(["--data=cityscapes_seg", f"--manual_dir={city}"]) == 2
    printed = capsys.readouterr().out.splitlines()
    assert "count: train has 2 records, official is 2975" in printed and len(printed) == 2


def test_duplicated_frames_across_splits(tmp_path, city):
    leak = city / "leftImg8bit/val/frankfurt/frankfurt_000001_005898_leftImg8bit.png"
    image = Image.open(city / f"leftImg8bit/train/{AACHEN}_leftImg8bit.png")
    image.save(leak.with_suffix(".jpg"), quality=95)  # re-encoded, so the bytes differ
    Image.open(leak.with_suffix(".jpg")).save(leak)
    leak.with_suffix(".jpg").unlink()
    assert one(tmp_path, city) == "duplicate: train/aachen_000000_000019 is validation/frankfurt_000001_005898"


@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.9])
def test_corrupt_file(tmp_path, city, keep):
    path = city / f"leftImg8bit/train/{AACHEN}_leftImg8bit.png"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    what = "is damaged (truncated" if keep else "is empty"
    assert one(tmp_path, city).startswith(f"broken: train/aachen_000000_000019: image {what}")


def plain_folder(root, shift=0):
    """Eight pairs of night and day; with ``shift`` every reference belongs to another image."""
    for seed in range(8):
        miniature.save(root / f"images/train/{seed}.png", miniature.scene(seed, (108, 192), night=True))
        miniature.save(root / f"references/train/{seed}.png", miniature.scene((seed + shift) % 8, (108, 192)))
        miniature.save(root / f"labels/train/{seed}.png", miniature.train_ids(seed, (108, 192)))
    return root


def test_plain_folder_is_clean(tmp_path, capsys):
    plain_folder(tmp_path)
    assert code(["--data=folder", f"--manual_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "no fault found" and out[0] == "8 images (train 8), 8 labels, 8 references"


NAMES = {"train_ids": [0, 2], "label_ids": [7, 26], "camvid": [3, 8], "synthia": [3, 8], "own": [1, 2]}


@pytest.mark.parametrize("encoding", [*folders.ENCODINGS, folders.OWN])
def test_plain_folder_is_read_as_in_training(tmp_path, encoding):
    label = np.resize(np.array(NAMES[encoding], np.uint8), miniature.SIZE)
    miniature.save(tmp_path / "images/a.png", miniature.scene(0))
    miniature.save(tmp_path / "labels/a.png", label)
    if encoding == "own":
        (tmp_path / "labels.json").write_text('{"1": "road", "2": "car"}')
    report = folder_check.check_folder(str(tmp_path), encoding)
    assert report.faults == report.warnings == []
    source = folders.FolderSource(str(tmp_path), encoding=encoding)
    trained_on = transforms.decode(source[0], ("image", "label"))["label"]
    assert np.array_equal(trained_on, np.resize(np.unique(trained_on), miniature.SIZE))
    for train_id in np.unique(trained_on):
        (line,) = (line for line in report.lines if f" {source.classes.names[train_id]} " in line)
        assert f"{100 * (trained_on == train_id).mean():.3f} %" in line


@pytest.mark.parametrize("encoding", ["camvid_colors", "camvid_ids", "train_id"])
def test_plain_folder_refuses_what_training_refuses(tmp_path, encoding):
    plain_folder(tmp_path)
    for read in (folder_check.check_folder, lambda root, name: folders.FolderSource(root, encoding=name)):
        with pytest.raises(UserError, match=f"unknown label table '{encoding}'"):
            read(str(tmp_path), encoding)


def test_labels_json_is_checked_as_it_is_read(tmp_path, capsys):
    miniature.save(tmp_path / "images/a.png", miniature.scene(0))
    miniature.save(tmp_path / "labels/a.png", np.full(miniature.SIZE, 200, np.uint8))
    run = lambda: code(["--data=folder", f"--manual_dir={tmp_path}"])
    assert run() == 2 and "label id 200 is no train id" in capsys.readouterr().out
    (tmp_path / "labels.json").write_text('{"200": "road"}')
    assert run() == 0


def test_labels_that_training_does_not_find(tmp_path):
    plain_folder(tmp_path)
    for label in (tmp_path / "labels/train").iterdir():
        Image.open(label).save(label.with_suffix(".jpg"))
    report = folder_check.check_folder(str(tmp_path))
    assert report.faults == [] and any("train/0.jpg (0.png has this name too)" in line for line in report.lines)
    for label in (tmp_path / "labels/train").glob("*.png"):
        label.unlink()
    faults = folder_check.check_folder(str(tmp_path)).faults
    assert len(faults) == 8 and "0.jpg is a JPEG, whose compression changes label values" in faults[0]
    with pytest.raises(UserError, match="is a JPEG"):
        transforms.decode(folders.FolderSource(str(tmp_path))[0], ("image", "label"))


def test_two_pictures_of_one_name(tmp_path):
    image = plain_folder(tmp_path) / "images/train/3.png"
    Image.open(image).save(image.with_suffix(".jpg"))
    with pytest.raises(UserError, match="3.jpg and .*3.png have one name"):
        folder_check.check_folder(str(tmp_path))


def test_one_pair_of_different_places(tmp_path):
    miniature.save(plain_folder(tmp_path) / "references/train/3.png", miniature.scene(99, (108, 192)))
    assert folder_check.check_folder(str(tmp_path)).faults == [
        "alignment: train/train/3: does not show the place of its reference"
    ]


def test_pairing_that_is_wrong_everywhere(tmp_path):
    (fault,) = folder_check.check_folder(str(plain_folder(tmp_path, shift=1))).faults
    assert fault.startswith("alignment: train: references fit their images no better")


def test_pairs_far_apart_by_gps(tmp_path):
    root = tmp_path / "data"
    miniature.make_dark_zurich(root)
    folder = root / "gps/train/day/GOPR0345"
    folder.mkdir(parents=True)
    (folder / "GOPR0345.csv").write_text("train/day/GOPR0345/GOPR0345_frame_000081,47.133456789,8.5\n")
    faults = faults_of("dark_zurich/pairs", root, tmp_path)
    assert len(faults) == 2 and all("m from its day image" in fault for fault in faults)


def test_metres():
    assert abs(alignment.meters((47.0, 8.0), (47.001, 8.0)) - 111.2) < 0.1
    assert np.isnan(alignment.meters((np.nan, np.nan), (47.0, 8.0)))


def test_prepared_set(tmp_path, city, prepare):
    builder = prepare("cityscapes_seg", "full", city)
    faults = check.check_prepared(str(builder.data_path))
    assert [fault.split(":")[0] for fault in faults] == [
        "count",
        "count",
    ]  # miniature, not official


def test_damaged_prepared_set(tmp_path, city, prepare):
    builder = prepare("cityscapes_seg", "full", city)
    (shard,) = builder.data_path.glob("*-train.array_record*")
    data = bytearray(shard.read_bytes())
    start = data.index(b"IDAT")
    data[start : start + 200] = bytes(200)
    shard.write_bytes(data)
    faults = check.check_prepared(str(builder.data_path))
    assert any(fault.startswith("broken: ") for fault in faults)


def test_prepared_set_with_wrong_values(tmp_path, monkeypatch, city, prepare):
    from nightjax.prepare import records

    identity = records.LabelEncoding(records.read_indexed, np.arange(256, dtype=np.uint8), "label_ids")
    monkeypatch.setitem(records.LABEL_ENCODINGS, "label_ids", identity)  # a builder that forgets to map
    faults = check.check_prepared(str(prepare("cityscapes_seg", "full", city).data_path))
    assert sum("these are label ids" in fault for fault in faults) == 3


def test_prepared_report_is_checked(tmp_path, prepare):
    miniature.make_nexet(tmp_path / "data")
    faults = check.check_prepared(str(prepare("nexet", "all", tmp_path / "data").data_path))
    assert any("frame_2 was left out" in fault for fault in faults)
    assert any("frame_9.jpg is in train.csv" in fault for fault in faults)


def test_not_a_prepared_set(tmp_path):
    with pytest.raises(UserError, match="dataset_info.json"):
        check.check_prepared(str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data=mars", "--manual_dir=."],
        ["--data=acdc/noon", "--manual_dir=."],
        ["--prepared=nowhere"],
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(arguments, capsys):
    assert code(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1


def test_as_a_program(tmp_path):
    shutil.rmtree(plain_folder(tmp_path) / "labels")
    command = [sys.executable, "-m", "nightjax", "check", "--data=folder", f"--manual_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.endswith("\nno fault found\n"), done.stderr


def code(arguments):
    """Exit code of the verb."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["check", *arguments])
        try:
            cli.run(verb.main)
        except SystemExit as end:
            return end.code
    return 0
