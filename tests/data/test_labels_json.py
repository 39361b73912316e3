"""``labels.json``: a folder's class set and how its label files spell the classes."""

import json

import numpy as np
import pytest

from nightjax.core.classes import CAMVID, CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.data import labels_json


def parse(content, where="/data/my_day/labels.json"):
    return labels_json.parse(content if isinstance(content, str) else json.dumps(content), where)


def test_the_forms_of_keys_and_entries():
    classes, codes = parse(
        {
            "1": "drivable",
            "2": {"name": "deer", "color": "#805020", "group": ["dynamic", "animals"]},
            "#804080": "road",
            "9": "deer",
            "0, 0, 255": "drivable",
            "0": "ignore",
            "3": None,
        }
    )
    assert classes.names == ("drivable", "deer", "road") and classes.name == "my_day"
    assert classes.palette == ((0, 0, 255), (128, 80, 32), (128, 64, 128))
    assert classes.group("dynamic") == classes.group("animals") == (1,) and classes.group("static") == (2,)
    assert codes.values == {255: IGNORE, 1: 0, 2: 1, 9: 1, 0: IGNORE, 3: IGNORE}
    assert codes.colors == {(128, 64, 128): 2, (0, 0, 255): 0, (128, 80, 32): 1}
    table = codes.table()
    assert table.dtype == np.uint8 and table[[1, 2, 9, 0, 7, 255]].tolist() == [0, 1, 1, 255, 255, 255]


def test_unnamed_differs_from_ignored():
    _, codes = parse({"1": "drivable", "0": "void", "#102030": "deer"})
    counts = np.zeros(256, np.int64)
    counts[[0, 1, 7, 255]] = 5
    assert codes.unnamed(counts) == (7,)
    assert codes.unnamed_colors([(16, 32, 48), (1, 2, 3)]) == ((1, 2, 3),)


def test_the_order_of_train_ids():
    assert parse({"5": "deer", "1": "grass"}).classes.names == ("deer", "grass")
    given = {"5": {"name": "deer", "id": 2}, "1": "grass", "2": {"name": "sky", "id": 0}}
    assert parse(given).classes.names == ("sky", "grass", "deer")
    listed = parse({"5": "deer", "classes": ["grass", "deer"]})
    assert listed.classes.names == ("grass", "deer") and listed.codes.values[5] == 1


def test_names_that_are_all_of_cityscapes_keep_its_set():
    classes, codes = parse({"1": "Road", "2": "traffic_light", "3": "road"})
    assert classes is CITYSCAPES and codes.values == {255: IGNORE, 1: 0, 2: 6, 3: 0}
    own = parse({"1": "road", "2": "car", "classes": "own"}).classes
    assert own.names == ("road", "car") and own.palette == (CITYSCAPES.palette[0], CITYSCAPES.palette[13])
    assert own.group("dynamic") == (1,)
    assert parse({"8": "Car", "classes": "camvid"}).classes is CAMVID
    assert parse({"1": "road", "2": "pothole"}).classes.names == ("road", "pothole")


def test_text_encodings(tmp_path):
    text, path = '{"1": "road", "2": "Fußgänger"}', tmp_path / "labels.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert labels_json.read(path).classes.names == ("road", "Fußgänger")
    path.write_bytes(b'{"1": "Stra\xdfe"}')
    with pytest.raises(UserError, match="labels.json is neither UTF-8 nor UTF-16"):
        labels_json.read(path)
    with pytest.raises(UserError, match="missing.json is missing"):
        labels_json.read(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"1": "road",}', "is no JSON"),
        (["road", "car"], "holds a list"),
        ({}, "names no class"),
        ({"road": 1}, "'road' is no value and no color: write value and name in this order"),
        ({"1": 5}, "'1' stands for 5"),
        ({"70000": "road"}, "'70000' is no value of a label file"),
        ({"1": {"name": "deer", "colr": "#112233"}}, "the field 'colr': known fields are name, color"),
        ({"1": {"name": "deer", "color": "brown"}}, "the color 'brown': write #rrggbb"),
        ({"1": {"name": "deer", "id": 7}, "2": "sky"}, "'deer' have ids that leave gaps"),
        ({"1": {"name": "deer", "id": "0"}}, "the id '0'"),
        ({"1": {"name": "deer", "group": 3}}, "the group 3"),
        ({"1": {"name": "a", "color": "#000001"}, "2": {"name": "b", "color": "#000001"}}, "'#000001' is the color of"),
        ({"1": "deer", "classes": ["grass"]}, "'deer' is no class of the list"),
        ({"1": "deer", "classes": "cityscapes"}, "'deer' is no class of cityscapes"),
        ({"1": "deer", "classes": "kitti"}, "'classes' is 'kitti'"),
        ('{"1": "deer", "1": "sky"}', "'1' stands there twice"),
        ('{"1": "deer", "01": "sky"}', "one value or color by two keys"),
    ],
)
def test_faults_are_one_line_with_file_key_and_remedy(content, message):
    with pytest.raises(UserError, match=message) as error:
        parse(content)
    assert "\n" not in str(error.value) and "labels.json" in str(error.value)


def test_254_classes_at_most():
    many = {str(value): f"class {value}" for value in range(254)}
    classes, codes = parse(many)
    assert len(classes) == 254 and len(set(classes.palette)) == 254 and (0, 0, 0) not in classes.palette
    assert codes.table()[:254].tolist() == list(range(254))
    with pytest.raises(UserError, match="255 classes: give 1 to 254"):
        parse(many | {"254": "one more"})
