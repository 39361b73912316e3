"""What people's folders look like, one test a kind of complaint: read as it is, or refused in one line at the start."""

import json
import os
import unicodedata

import numpy as np
import pytest

from nightjax.core import files
from nightjax.core.config import parse_arguments
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.data import preflight, transforms
from nightjax.data.folders import FolderSource
from nightjax.data.preflight import Wanted
from nightjax.data.sources import open_source
from nightjax.selection.images import ImageSet
from tests.helpers.odd_files import encoded, gray_png, palette_png
from tests.helpers.own_folders import make, picture, values, write

FIELDS = ("image", "label")
TRAIN_IDS = np.array([IGNORE, 0, 13, 10])


def look(root, split="all", fields=FIELDS, **options):
    return preflight.look({"data.streams.source": Wanted(f"folder:{root}", split, fields)}, **options)


def labels_of(root, split="all"):
    return [transforms.decode(record, FIELDS)["label"] for record in FolderSource(root, split)]


def assert_right(root, count=3, split="all"):
    """All is read as it was made, and nothing is said."""
    assert look(root, split) == []
    source = FolderSource(root, split)
    assert len(source) == count
    for record in source:
        seed = int(record["image_id"][-1])
        example = transforms.decode(record, FIELDS)
        np.testing.assert_array_equal(example["image"], picture(seed))
        np.testing.assert_array_equal(example["label"], TRAIN_IDS[values(seed)])


def test_litter_beside_the_pictures(tmp_path):
    make(tmp_path)
    for part in ("images", "labels"):
        for name in (
            "._f0.png",
            ".ipynb_checkpoints/f0-checkpoint.png",
            "Thumbs.db",
            "@eaDir/f0.png",
            "__MACOSX/f0.png",
        ):
            write(tmp_path, f"{part}/train/{name}", b"x")
    assert_right(tmp_path)
    assert_right(tmp_path, split="train")
    assert FolderSource(tmp_path).splits() == ["train"]


def test_links_to_splits_and_files(tmp_path):
    store = make(tmp_path / "store", split="day")
    os.makedirs(tmp_path / "data/images")
    os.makedirs(tmp_path / "data/labels")
    write(tmp_path / "data", "labels.json", (store / "labels.json").read_bytes())
    for part in ("images", "labels"):
        os.symlink(f"../../store/{part}/day", tmp_path / "data" / part / "train")
        os.symlink("train", tmp_path / "data" / part / "val")
    for split in ("train", "val"):
        assert_right(tmp_path / "data", split=split)
    (note,) = look(tmp_path / "data")  # Each image once.
    assert "1 passed over: images/val (a link to a folder that is read already)" in note
    assert FolderSource(tmp_path / "data").names == ["train/f0", "train/f1", "train/f2"]
    (tmp_path / "data/images/val").unlink()
    os.symlink("../../store/images", tmp_path / "data/images/val")
    assert len(FolderSource(tmp_path / "data", "val")) == 3


def test_labels_that_two_conditions_share_by_a_link(tmp_path):
    make(tmp_path, split="day")
    for seed in range(3):
        write(tmp_path, f"images/night/f{seed}.png", encoded(picture(seed)))
    os.symlink("day", tmp_path / "labels/night")
    assert_right(tmp_path, 6)
    assert_right(tmp_path, split="night")


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_gray_labels_of_any_depth(tmp_path, bits):
    make(tmp_path)
    for seed in range(3):
        write(tmp_path, f"labels/train/f{seed}.png", gray_png(values(seed), bits))
    assert_right(tmp_path)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("name", ["{}.{}", "{}.{upper}"])
def test_any_format_under_any_case(tmp_path, form, name):
    make(tmp_path)
    suffix = {"TIFF": "tif"}.get(form, form.lower())
    for seed in range(3):
        for part, pixels in (("images", picture(seed)), ("labels", values(seed))):
            (tmp_path / part / "train" / f"f{seed}.png").unlink()
            kind = "PNG" if form == "GIF" and part == "images" else form
            write(
                tmp_path,
                f"{part}/train/" + name.format(f"f{seed}", suffix, upper=suffix.upper()),
                encoded(pixels, kind),
            )
    assert_right(tmp_path)


def test_equal_channels_palettes_and_colors(tmp_path):
    make(tmp_path)
    palette = [0, 0, 0, 128, 64, 128, 0, 0, 142, 70, 130, 180]
    write(tmp_path, "labels/train/f0.png", encoded(np.repeat(values(0)[..., None], 3, -1)))
    write(tmp_path, "labels/train/f1.png", palette_png(values(1), palette, 2))
    assert_right(tmp_path)
    colors = {"#000000": None, "#804080": "road", "#00008e": "car", "#4682b4": "sky"}
    write(tmp_path, "labels.json", json.dumps(colors))
    for seed in (0, 2):
        write(tmp_path, f"labels/train/f{seed}.png", encoded(np.array(palette, np.uint8).reshape(4, 3)[values(seed)]))
    assert_right(tmp_path)  # The palette file by the colors of its palette, since no values are named.


def test_binary_masks_in_color_files(tmp_path):
    make(tmp_path)
    for seed in range(3):
        mask = np.where(values(seed) > 1, 255, 0).astype(np.uint8)
        write(tmp_path, f"labels/train/f{seed}.png", encoded(np.repeat(mask[..., None], 3, -1)))
    write(tmp_path, "labels.json", '{"#000000": "road", "#ffffff": "car"}')
    assert [np.unique(label).tolist() for label in labels_of(tmp_path)] == [[0, 13]] * 3


@pytest.mark.parametrize("name", ["f0.png", "f0.jpg", "f0.JPEG"])
def test_a_jpeg_as_label_is_refused_before_training(tmp_path, name):
    make(tmp_path)
    (tmp_path / "labels/train/f0.png").unlink()
    write(tmp_path, f"labels/train/{name}", encoded(values(0), "JPEG", quality=100))
    with pytest.raises(UserError, match="1 of 3 records cannot be read: 'train/f0', label is a JPEG"):
        look(tmp_path)
    with pytest.raises(UserError, match="'train/f0'.*is a JPEG"):
        labels_of(tmp_path)


def test_values_that_nobody_named_are_ignored_and_said(tmp_path, capsys):
    make(tmp_path)
    write(tmp_path, "labels/train/f1.png", encoded(values(1) + np.uint8(5) * (values(1) == 3)))
    (note,) = look(tmp_path)
    assert "nobody named" in note and "8: " in note and "first in train/f1" in note
    label = labels_of(tmp_path)[1]
    np.testing.assert_array_equal(label, np.where(values(1) == 3, IGNORE, TRAIN_IDS[values(1)]))
    assert "nobody named 8" in capsys.readouterr().out


def test_values_above_a_byte(tmp_path):
    make(tmp_path)
    write(tmp_path, "labels.json", '{"1": "road", "1000": "car"}')
    for seed in range(3):
        write(tmp_path, f"labels/train/f{seed}.png", gray_png(np.where(values(seed) > 1, 1000, 1), 16))
    for seed, label in enumerate(labels_of(tmp_path)):
        np.testing.assert_array_equal(label, np.where(values(seed) > 1, 13, 0))


def test_masks_of_0_and_255_are_doubted(tmp_path):
    make(tmp_path)
    (tmp_path / "labels.json").unlink()
    for seed in range(3):
        write(tmp_path, f"labels/train/f{seed}.png", encoded(np.where(values(seed) > 1, 255, 0).astype(np.uint8)))
    (note,) = look(tmp_path)
    assert "hold only 'road' and ignored pixels: is that meant?" in note


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_orientation_that_keeps_the_size_is_warned_of(tmp_path, orientation):
    make(tmp_path)
    write(tmp_path, "images/train/f0.png", encoded(picture(0), "PNG", orientation))
    (note,) = look(tmp_path)
    assert "1 labeled photos have an EXIF orientation (train/f0)" in note
    assert look(tmp_path, fields=("image",)) == []


def test_orientation_of_a_portrait(tmp_path):
    make(tmp_path)
    write(tmp_path, "images/train/f0.png", encoded(picture(0), "PNG", 6))
    message = "label is 32x24 but image is 24x32, which its EXIF orientation 6 turns"
    with pytest.raises(UserError, match=message):
        look(tmp_path)
    with pytest.raises(UserError, match="EXIF orientation 6 turns it, and the 32x24 one fits it unturned"):
        labels_of(tmp_path)
    write(tmp_path, "labels/train/f0.png", encoded(np.rot90(values(0), -1)))  # Drawn on the photo as shown.
    (note,) = look(tmp_path)
    assert "labels must show the turned photos" in note
    example = transforms.decode(FolderSource(tmp_path)[0], FIELDS)
    np.testing.assert_array_equal(example["image"], np.rot90(picture(0), -1))
    np.testing.assert_array_equal(example["label"], TRAIN_IDS[np.rot90(values(0), -1)])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("line", ["train\\f1.png", "train/f1", "./train/f1.PNG", "images/train/f1.png", '"train\\f1"'])
def test_lists_of_any_editor(tmp_path, encoding, line):
    make(tmp_path)
    write(tmp_path, "lists/mine.TXT", f"{line}\r\n\r\ntrain/f0\r\n".encode(encoding))
    assert FolderSource(tmp_path, "mine").names == ["train/f1", "train/f0"]
    write(tmp_path, "labels.json", json.dumps({"1": "road", "2": "car", "3": "sky", "0": "void"}).encode(encoding))
    assert_right(tmp_path, 2, "mine")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_two_unicode_forms(tmp_path, forms):
    make(tmp_path)
    image, label = (unicodedata.normalize(form, "Zürich_0") for form in forms)
    os.rename(tmp_path / "images/train/f0.png", tmp_path / f"images/train/{image}.png")
    os.rename(tmp_path / "labels/train/f0.png", tmp_path / f"labels/train/{label}.png")
    write(tmp_path, "lists/l.txt", unicodedata.normalize(forms[1], "train/Zürich_0"))
    for part, form in zip(("images", "labels"), forms, strict=True):
        os.rename(tmp_path / part / "train", tmp_path / part / unicodedata.normalize(form, "Straße ä"))
    write(tmp_path, "lists/l.txt", unicodedata.normalize(forms[1], "Straße ä/Zürich_0"))
    for split, count in (("all", 3), ("Straße ä", 3), ("l", 1)):
        assert_right(tmp_path, count, split)


def test_missing_labels_are_counted_at_the_start_with_what_lies_there(tmp_path):
    make(tmp_path, 8)
    for seed in (3, 6):
        (tmp_path / f"labels/train/f{seed}.png").unlink()
    write(tmp_path, "labels/train/f3.json", "{}")
    with pytest.raises(UserError, match=r"2 of 8 images have no 'label' \(train/f3, train/f6\).*f3.json \(.json\)"):
        look(tmp_path)


def test_all_faults_of_all_sets_in_one_list(tmp_path):
    for name in ("a", "b", "c"):
        make(tmp_path / name)
    (tmp_path / "a/labels/train/f1.png").unlink()
    write(tmp_path, "a/images/train/f2.png", encoded(picture(2))[:-30])
    write(tmp_path, "b/images/train/f0.png", b"<html>")
    sets = {f"eval.sets.{name}": Wanted(f"folder:{tmp_path / name}", "all", FIELDS) for name in ("a", "b", "c")}
    sets["data.streams.source"] = Wanted("nightstret/std", "x", FIELDS)
    sets["data.streams.target"] = Wanted("camvid", "dusk_train", FIELDS)
    with pytest.raises(UserError) as error:
        preflight.look(sets, data_dir=str(tmp_path / "tfds"))
    text = str(error.value)
    assert text.startswith("4 data sets have faults: eval.sets.a: ") and len(text) < 1000
    for words in ("1 of 3 images have no 'label'", "eval.sets.b: ", "'nightstret/std'", "'camvid' needs manual_dir"):
        assert words in text
    assert not (tmp_path / "tfds").exists()
    absent = {"eval.sets.d": Wanted("camvid", "dusk_train", FIELDS, optional=True)}
    assert preflight.look(absent, data_dir=str(tmp_path / "tfds")) == []
    with pytest.raises(UserError, match="1 of 3 images have no 'label' .*; 1 of 3 records cannot be read: 'train/f2'"):
        look(tmp_path / "a")


def test_one_bad_file_of_every_kind_is_named(tmp_path):
    make(tmp_path)
    for data in (encoded(picture(0))[:100], b"", b"GIF89a", encoded(picture(0), "JPEG")[:-2], os.urandom(99)):
        for part in ("images", "labels"):
            make(tmp_path)
            write(tmp_path, f"{part}/train/f1.png", data)
            with pytest.raises(UserError, match="1 of 3 records cannot be read: 'train/f1', "):
                look(tmp_path)


def test_sizes_are_read_from_headers_alone(tmp_path, monkeypatch):
    make(tmp_path)
    write(tmp_path, "images/train/f0.png", encoded(picture(0), "PNG", 6))
    sizes = [transforms.decode(record, ("image",))["image"].shape[:2] for record in FolderSource(tmp_path)]
    monkeypatch.setattr(files, "read_bytes", None)
    assert [transforms.image_size(record) for record in FolderSource(tmp_path, encoding="label_ids")] == sizes


def test_pipes_are_passed_over(tmp_path):
    make(tmp_path)
    os.mkfifo(tmp_path / "images/train/pipe.png")
    (note,) = look(tmp_path)
    assert "1 passed over: images/train/pipe.png (a pipe, socket or device)" in note


def test_other_files_are_named(tmp_path):
    make(tmp_path)
    write(tmp_path, "images/train/clip.mp4", b"x")
    write(tmp_path, "labels/train/f0.xml", b"x")
    (note,) = look(tmp_path)
    assert "2 passed over: images/train/clip.mp4 (.mp4), labels/train/f0.xml (.xml)" in note


def test_a_folder_that_holds_no_image_says_what_it_holds(tmp_path):
    for name in ("images/a.raw", "images/b.mov", "images/.DS_Store"):
        write(tmp_path, name, b"x")
    with pytest.raises(UserError, match=r"has no records; 2 passed over: images/a.raw \(.raw\), images/b.mov"):
        look(tmp_path)
    write(tmp_path / "flat", "a.jpg", b"x")
    with pytest.raises(UserError, match="1 images lie in .*flat itself"):
        look(tmp_path / "flat")


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train[:50%]", "01"),
        ("train[50%:]", "23"),
        ("train[1:3]", "12"),
        ("train[-1:]", "3"),
        ("train[:90%]", "0123"),
        ("train [ : 50% ] + val", "0145"),
        ("train+val", "012345"),
        ("all[4:]", "45"),
        ("train/", "0123"),
    ],
)
def test_split_expressions(tmp_path, split, names):
    make(tmp_path, 4)
    for seed in (4, 5):
        write(tmp_path, f"images/val/f{seed}.png", encoded(picture(seed)))
        write(tmp_path, f"labels/val/f{seed}.png", encoded(values(seed)))
    assert "".join(name[-1] for name in FolderSource(tmp_path, split).names) == names


@pytest.mark.parametrize("split", ["train[:x]", "train[:101%]", "train[", "[:5]", "train[1:2:3]"])
def test_split_expressions_that_are_none(tmp_path, split):
    make(tmp_path)
    with pytest.raises(UserError, match="split|bound"):
        FolderSource(tmp_path, split)


def test_a_split_of_an_odd_name_is_taken_whole(tmp_path):
    make(tmp_path, split="day+dusk [a]")
    assert_right(tmp_path, split="day+dusk [a]")
    with pytest.raises(UserError, match="no split '../images'"):
        FolderSource(tmp_path, "../images")


@pytest.mark.parametrize("name", ["day+dusk", "a, b", "with blank", "x%20#y", "day+folder", "a:b"])
def test_odd_paths(tmp_path, name):
    make(tmp_path / name)
    source = open_source(f"folder:{tmp_path / name}", "all")
    assert len(source) == 3 and source.name == f"folder {tmp_path / name}"
    make(tmp_path / "other")
    assert len(open_source(f"folder:{tmp_path / name}+folder:{tmp_path / 'other'}", "all")) == 6
    assert len(open_source(f"folder+folder:{tmp_path / name}", "all", manual_dir=str(tmp_path / "other"))) == 6
    assert len(ImageSet(f"{tmp_path / name}/images,{tmp_path}/other/images")) == 6
    get_config = lambda day="", night="": {}
    arguments = f"day={tmp_path / name},night={tmp_path / 'other'}"
    assert parse_arguments(arguments, get_config) == {"day": str(tmp_path / name), "night": str(tmp_path / "other")}


def test_a_moved_folder_is_found_by_manual_dir(tmp_path):
    make(tmp_path / "b" / "day")
    for manual_dir in ("b/day", "b"):
        source = open_source(f"folder:{tmp_path / 'a' / 'day'}", "all", manual_dir=str(tmp_path / manual_dir))
        assert source.root == tmp_path / "b/day"


def test_rare_classes_are_counted_by_the_names_of_the_folder(tmp_path):
    make(tmp_path)
    write(tmp_path, "labels.json", '{"1": "mud", "2": "deer", "3": "path", "0": null}')
    source = FolderSource(tmp_path)
    assert source.classes.names == ("mud", "deer", "path")
    expected = [[np.count_nonzero(values(seed) == value) for value in (1, 2, 3)] for seed in range(3)]
    np.testing.assert_array_equal(source.class_pixels(), expected)
