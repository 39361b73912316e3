"""Sources: prepared TFDS data sets, plain folders, lists, and what goes wrong with them."""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import pathlib
import pickle
import shutil
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from nightjax.core.classes import CAMVID, CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data import labels, transforms
from nightjax.data.imagefiles import encode_png
from nightjax.data.sources import ListSource, TfdsSource, class_set, open_source
from nightjax.prepare.check import check_prepared

DUSK = ("0001TP_006690", "0001TP_006720", "0001TP_008550")


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


def label_of(number):
    return np.full((8, 12), number, np.uint8)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """A manual_dir with three frames of CamVid."""
    manual = tmp_path_factory.mktemp("manual")
    for number, stem in enumerate(DUSK):
        write(manual / "CamVid" / "train" / f"{stem}.png", np.full((8, 12, 3), number, np.uint8))
        write(manual / "CamVid" / "trainannot" / f"{stem}.png", label_of(number))
    return manual


@pytest.fixture
def opened(camvid, tmp_path):
    return functools.partial(open_source, data_dir=str(tmp_path / "tfds"), manual_dir=str(camvid))


def test_records_are_encoded_bytes_and_text(opened):
    source = opened("camvid/segnet", "dusk_train")
    assert len(source) == 2 and source.split == "dusk_train"
    record = source[1]
    assert record["image_id"] == DUSK[1] and record["sequence"] == "0001TP"
    assert isinstance(record["image"], bytes) and isinstance(record["label"], bytes)
    example = transforms.decode(record, ("image", "label"))
    assert (example["image"] == 1).all() and (example["label"] == labels.CAMVID_ID_TO_TRAIN_ID[1]).all()


def test_camvid_is_read_in_its_own_classes(opened):
    """What is stored as a train id of Cityscapes comes back as the class it was made of."""
    assert class_set("camvid") is CAMVID and class_set("camvid/official") is CITYSCAPES
    assert class_set("cityscapes_seg/half+nightcity/plus") is CITYSCAPES
    source = opened("camvid", "dusk_train", classes=CAMVID)
    for train_id in range(len(source)):
        assert (transforms.decode(source[train_id], ("label",), len(CAMVID))["label"] == train_id).all()
    own = dataclasses.replace(CAMVID, names=("Ground", *CAMVID.names[1:]), name="own")
    with pytest.raises(UserError, match="its classes Sky are not among those of this run"):
        opened("camvid", "dusk_train", classes=own)


def test_second_opening_needs_no_manual_dir(opened, tmp_path):
    first = opened("camvid", "dusk_train")
    again = open_source("camvid", "dusk_train", data_dir=str(tmp_path / "tfds"))
    assert again[0]["image"] == first[0]["image"]


@pytest.fixture
def prepared(camvid, tmp_path):
    """(opens camvid's dusk as prepared from the first folder, that folder, a copy of it)."""
    first, second = (pathlib.Path(shutil.copytree(camvid, tmp_path / name)) for name in ("first", "second"))
    opened = functools.partial(open_source, split="dusk_train", data_dir=str(tmp_path / "tfds"))
    opened("camvid", manual_dir=str(first))
    return opened, first, second


def test_a_prepared_set_refuses_another_folder(prepared, tmp_path):
    opened, first, second = prepared
    for name, manual_dir, words in (
        ("camvid", second, f"not from manual_dir {second}: delete the folder {tmp_path}/tfds/camvid/segnet/1.0.0 "),
        (f"camvid:{second}", "", f"not from manual_dir {second}:.* --config.data.dir.*leave out manual_dir"),
        (f"camvid:{first}+camvid:{second}", "", f"camvid was prepared from {first}, not from manual_dir {second}"),
        (
            "camvid/segnet",
            "nowhere",
            f"segnet was prepared from {first}, not from manual_dir nowhere, which does not exist: ",
        ),
    ):
        with pytest.raises(UserError, match=words):
            opened(name, manual_dir=str(manual_dir))
    shutil.rmtree(tmp_path / "tfds" / "camvid")
    assert len(opened("camvid", manual_dir=str(second))) == 2


def test_a_prepared_set_knows_its_folder_again(prepared, tmp_path, monkeypatch):
    opened, first, second = prepared
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(first)
    for manual_dir in (f"{first}/", "first", "link"):
        assert len(opened("camvid", manual_dir=manual_dir)) == 2
    first.rename(tmp_path / "moved")
    for name, manual_dir in (("camvid", ""), ("camvid", str(first)), (f"camvid:{first}", str(second))):
        assert len(opened(name, manual_dir=manual_dir)) == 2


def test_a_set_prepared_before_folders_were_kept_opens(prepared, tmp_path):
    opened, _, second = prepared
    file = tmp_path / "tfds" / "camvid" / "segnet" / "1.0.0" / "metadata.json"
    old = json.loads(file.read_text())
    del old["manual_dir"]
    for split in old["splits"].values():
        del split["left_out"]
    file.write_text(json.dumps(old))
    for manual_dir in (str(second), "nowhere"):
        assert len(opened("camvid", manual_dir=manual_dir)) == 2


def test_what_is_drawn_needs_no_folder(tmp_path):
    for manual_dir in ("nowhere", str(tmp_path)):
        opened = open_source(
            "nightstreet/tiny_unlabeled", "target_twilight", data_dir=str(tmp_path), manual_dir=manual_dir
        )
        assert len(opened)


def test_what_was_left_out_is_said_at_every_opening(camvid, tmp_path, capsys):
    manual = pathlib.Path(shutil.copytree(camvid, tmp_path / "manual"))
    image = manual / "CamVid" / "train" / f"{DUSK[0]}.png"
    image.write_bytes(image.read_bytes()[:40])
    opened = functools.partial(open_source, "camvid", data_dir=str(tmp_path / "tfds"))
    assert len(opened("dusk_train", manual_dir=str(manual))) == 1
    assert capsys.readouterr().out.count("1 left out") == 1
    for _ in range(2):
        opened("dusk_train[:1]")
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"camvid, dusk_train: 1 left out: {DUSK[0]} (image is damaged (truncated, 40 bytes)")
        assert line.endswith(f"delete the folder {tmp_path}/tfds/camvid/segnet/1.0.0 to prepare it again")
    opened("dusk_test")
    assert capsys.readouterr().out == ""


def test_default_data_dir_is_that_of_tfds(camvid, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "here"))
    open_source("camvid", "dusk_train", manual_dir=str(camvid))
    assert (tmp_path / "here" / "camvid" / "segnet").is_dir()


def test_slices_and_sums(opened):
    assert len(opened("camvid", "dusk_train[:1]")) == 1
    both = opened("camvid", "dusk_train+dusk_test")
    assert [both[i]["image_id"] for i in range(3)] == list(DUSK)
    expected = [labels.class_pixels(labels.CAMVID_ID_TO_TRAIN_ID[label_of(number)]) for number in range(3)]
    np.testing.assert_array_equal(both.class_pixels(), expected)


def test_class_pixels_are_counted_once(opened, monkeypatch):
    pixels = opened("camvid", "dusk_train").class_pixels()
    assert pixels.shape == (2, 19) and pixels.sum() == 2 * 8 * 12
    source = opened("camvid", "dusk_train")
    monkeypatch.setattr(TfdsSource, "__len__", lambda self: 0)  # Counting again would find nothing.
    np.testing.assert_array_equal(source.class_pixels(), pixels)


@pytest.mark.parametrize("content", [b"", b"x" * 50, b"\x93NUMPY\x01\x00"], ids=["empty", "noise", "cut"])
def test_damaged_counts_are_counted_again(content, opened, capsys):
    pixels = opened("camvid", "dusk_train").class_pixels()
    source = opened("camvid", "dusk_train")
    (cache,) = pathlib.Path(source.path).glob("class_pixels-*.npy")
    cache.write_bytes(content)
    np.testing.assert_array_equal(source.class_pixels(), pixels)
    assert "counted again" in capsys.readouterr().out


def test_sources_travel_to_worker_processes(opened):
    source = opened("camvid", "dusk_train")
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == 2 and copy[1]["image"] == source[1]["image"]


def test_two_processes_prepare_once(opened):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        sources = [future.result() for future in [pool.submit(opened, "camvid", "dusk_train") for _ in range(2)]]
    assert sources[0][0]["image"] == sources[1][0]["image"]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("camvod", "day", "unknown data set 'camvod'; did you mean 'camvid'"),
        ("quite_something", "day", "unknown data set .*camvid"),
        ("camvid/segnat", "day", "no config 'segnat'; did you mean 'segnet'"),
        ("camvid", "dusk_trian", "no split 'dusk_trian'; did you mean 'dusk_train'"),
        ("camvid", "all", "no split 'all'.*dusk_test, dusk_train"),
        ("camvid", "dusk_train+nothing", "no split 'nothing'"),
    ],
)
def test_wrong_names(opened, name, split, message):
    with pytest.raises(UserError, match=message):
        opened(name, split)


def test_half_prepared_and_damaged_data(opened, tmp_path):
    source = opened("camvid", "dusk_train")
    folder = next((tmp_path / "tfds" / "camvid" / "segnet").iterdir())
    shard = next(folder.glob("*dusk_train*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged.*delete the folder"):
        opened("camvid", "dusk_train")[0]
    shard.unlink()
    with pytest.raises(UserError, match="is missing: delete the folder"):
        opened("camvid", "dusk_train")
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match="partly prepared.*delete"):
        opened("camvid", "dusk_train")
    shutil.rmtree(folder)
    assert len(opened("camvid", "dusk_train")) == len(source)


def test_data_dir_that_is_a_file(camvid, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to data_dir"):
        open_source("camvid", "dusk_train", data_dir=str(tmp_path / "file"), manual_dir=str(camvid))


def test_machines_without_file_locks_prepare_all_the_same(opened, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # As on Windows.
    assert len(opened("camvid", "dusk_train")) == 2
    assert not list(tmp_path.rglob("*.claim"))


with tfds.core.registered.skip_registration():

    class EarlierBuilder(tfds.core.GeneratorBasedBuilder):
        """Dark Zurich's test set as earlier versions prepared it."""

        name = "dark_zurich"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="test")]

        def _info(self):
            image, text = tfds.features.Image(shape=(None, None, 3)), tfds.features.Text()
            features = {"image_id": text, "image": image, "image_ref": image, "ref_id": text}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            yield (
                "a",
                {
                    "image_id": "a",
                    "image": encode_png(np.zeros((8, 12, 3), np.uint8)),
                    "image_ref": encode_png(np.full((8, 12, 3), 9, np.uint8)),
                    "ref_id": "a_ref",
                },
            )


def test_data_sets_of_earlier_versions_are_read_under_the_names_of_today(tmp_path):
    EarlierBuilder(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    source = open_source("dark_zurich/test", "test", data_dir=str(tmp_path))
    assert set(source[0]) == {"image_id", "image", "reference", "reference_id"}
    assert source[0]["reference_id"] == "a_ref"
    assert (transforms.decode(source[0], ("image", "reference"))["reference"] == 9).all()
    assert not [fault for fault in check_prepared(f"{tmp_path}/dark_zurich/test/1.0.0") if "cannot be read" in fault]


@pytest.fixture
def folder(tmp_path):
    """Four images, three labels in Cityscapes label ids, one reference."""
    for number, stem in enumerate(("a/one", "a/two", "b/three", "b/four")):
        write(tmp_path / "images" / f"{stem}{'.jpg' if number == 3 else '.png'}", np.full((8, 12, 3), number, np.uint8))
        if number < 3:
            write(tmp_path / "labels" / f"{stem}.png", label_of((7, 26, 0)[number]))
    write(tmp_path / "references" / "a" / "two.jpg", np.full((8, 12, 3), 200, np.uint8))
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "mine.txt").write_text("b/three.png\n\na/one\n")
    return tmp_path


def ids(source):
    return [source[i]["image_id"] for i in range(len(source))]


def test_folder_splits(folder):
    opened = functools.partial(open_source, "folder/label_ids", manual_dir=str(folder))
    assert ids(opened("all")) == ["a/one", "a/two", "b/four", "b/three"]
    assert ids(opened("a")) == ["a/one", "a/two"]
    assert ids(opened("mine")) == ["b/three", "a/one"]
    with pytest.raises(UserError, match="no split 'mien'; did you mean 'mine'"):
        opened("mien")


def test_folder_records(folder):
    source = open_source("folder/label_ids", "a", manual_dir=str(folder))
    example = transforms.decode(source[1], ("image", "label", "reference"))
    assert (example["label"] == 13).all() and (example["reference"] > 190).all()
    np.testing.assert_array_equal(source.class_pixels()[:, [0, 13]], [[96, 0], [0, 96]])
    with pytest.raises(UserError, match="'a/one' has no 'reference'"):
        transforms.decode(source[0], ("image", "reference"))
    with pytest.raises(UserError, match="b/four has no label"):
        open_source("folder/label_ids", "all", manual_dir=str(folder)).class_pixels()


def test_folder_in_train_ids_is_checked(folder):
    source = open_source("folder", "a", manual_dir=str(folder))
    with pytest.raises(UserError, match="'a/two': label id 26 is no train id"):
        transforms.decode(source[1], ("image", "label"))


def test_folder_errors(folder, tmp_path):
    with pytest.raises(UserError, match="needs manual_dir"):
        open_source("folder", "all")
    with pytest.raises(UserError, match="no folder .*images"):
        open_source("folder", "all", manual_dir=str(folder / "lists"))
    with pytest.raises(UserError, match="'lable_ids'.*label_ids"):
        open_source("folder/lable_ids", "all", manual_dir=str(folder))
    (folder / "lists" / "mine.txt").write_text("c/none.png")
    with pytest.raises(UserError, match="names 'c/none.png'"):
        open_source("folder", "mine", manual_dir=str(folder))
    source = open_source("folder", "a", manual_dir=str(folder))
    (folder / "images" / "a" / "one.png").unlink()
    with pytest.raises(UserError, match="cannot read .*one.png"):
        transforms.decode(source[0], ("image",))


def test_list_source_counts_classes():
    source = ListSource([{"image_id": "a", "label": cv2.imencode(".png", label_of(3))[1].tobytes()}])
    assert source.class_pixels()[0].tolist() == [0, 0, 0, 96] + [0] * 15


def test_folders_name_their_own_path(tmp_path):
    for number, name in enumerate(("day", "night")):
        write(tmp_path / name / "images" / "a.png", np.full((8, 12, 3), number, np.uint8))
        write(tmp_path / name / "labels" / "a.png", label_of(7 + number))
    day = open_source(f"folder:{tmp_path / 'day'}", "all", manual_dir=str(tmp_path / "night"))
    assert (transforms.decode(day[0], ("image",))["image"] == 0).all()
    night = open_source(f"folder/label_ids:{tmp_path / 'night'}", "all")
    assert (transforms.decode(night[0], ("label",))["label"] == 1).all()
    assert night.label_version == "folder, label_ids"


def test_any_data_set_names_its_own_path(camvid, tmp_path):
    source = open_source(f"camvid/segnet:{camvid}", "dusk_train", data_dir=str(tmp_path / "tfds"))
    assert len(source) == 2 and source.label_version == "CamVid segnet"


def test_joined_sources(tmp_path):
    for number, (name, count) in enumerate((("a", 2), ("b", 3))):
        for index in range(count):
            write(tmp_path / name / "images" / f"{name}{index}.png", np.full((8, 12, 3), number, np.uint8))
            write(tmp_path / name / "labels" / f"{name}{index}.png", label_of(number))
    joined = open_source(f"folder:{tmp_path / 'a'}+folder/train_ids:{tmp_path / 'b'}", "all")
    assert [joined[i]["image_id"] for i in range(len(joined))] == ["a0", "a1", "b0", "b1", "b2"]
    assert joined.class_pixels()[:, :2].tolist() == [[96, 0]] * 2 + [[0, 96]] * 3
    assert pickle.loads(pickle.dumps(joined))[4]["image_id"] == "b2"
    for index in (-1, 5):
        with pytest.raises(IndexError):
            joined[index]
    with pytest.raises(UserError, match="unknown data set 'nightcty'"):
        open_source(f"folder:{tmp_path / 'a'}+nightcty", "all")


def test_labels_json_takes_the_place_of_train_ids(tmp_path):
    write(tmp_path / "images" / "a.png", np.zeros((8, 12, 3), np.uint8))
    write(tmp_path / "labels" / "a.png", label_of(7))
    (tmp_path / "labels.json").write_text('{"7": "car"}')
    for name, train_id in (("folder", 13), ("folder/own", 13), ("folder/label_ids", 0)):
        source = open_source(f"{name}:{tmp_path}", "all")
        assert (transforms.decode(source[0], ("image", "label"))["label"] == train_id).all()
        assert source.label_version == ("folder, own" if train_id else "folder, label_ids")


@pytest.mark.parametrize("part", ["images", "references"])
def test_two_pictures_of_one_name_are_refused(folder, part):
    write(folder / part / "a" / "two.png", np.zeros((8, 12, 3), np.uint8))
    write(folder / part / "a" / "two.jpg", np.zeros((8, 12, 3), np.uint8))
    with pytest.raises(UserError, match=f"{part}/a/two.jpg and .*{part}/a/two.png.*rename"):
        open_source("folder", "a", manual_dir=str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "labels.json is missing"),
        ("[1]", "holds a list"),
        ('{"1": "rood", "classes": "cityscapes"}', "did you mean 'road'"),
        ('{"70000": "road"}', "is no value of a label file"),
    ],
)
def test_own_label_values_need_a_table(tmp_path, text, message):
    write(tmp_path / "images" / "a.png", np.zeros((8, 12, 3), np.uint8))
    if text:
        (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(f"folder/own:{tmp_path}", "all")
