"""Five classes of one's own, through every method and every verb."""

import json

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from nightjax import api, export, predict, pseudo_label, submit
from nightjax.core.class_section import of_section
from nightjax.core.errors import UserError
from nightjax.data import sources, transforms
from nightjax.run import class_sets, loaded, settings
from nightjax.train import train
from tests.helpers import own_classes

COLOR_OF_DEER = (128, 80, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_classes.write(tmp_path_factory.mktemp("wild") / "my_wild")


def check_run(workdir, result, folder):
    """Names, colors and numbers of classes in everything that a run writes."""
    assert list(result["iou"]) == list(own_classes.NAMES)
    saved = json.loads((workdir / "config.json").read_text())["classes"]
    assert saved["names"] == list(own_classes.NAMES) and saved["name"] == "my_wild"
    assert saved["palette"][3] == list(COLOR_OF_DEER) and abs(sum(saved["pixel_share"]) - 1) < 1e-9
    report = (workdir / "report.html").read_text()
    assert all(name in report for name in own_classes.NAMES) and "rgb(128,80,32)" in report
    predict.main(
        ["predict", f"--workdir={workdir}", f"--input={folder}/images/night/0.png", f"--output={workdir}/masks"]
    )
    label = cv2.imread(str(workdir / "masks/0_trainids.png"), cv2.IMREAD_UNCHANGED)
    color = cv2.imread(str(workdir / "masks/0_color.png"))[..., ::-1]
    assert label.shape == (32, 48) and label.max() < 5
    np.testing.assert_array_equal(color, np.array(saved["palette"], np.uint8)[label])
    written = json.loads((workdir / "masks/classes.json").read_text())
    assert written["3"] == {"name": "deer", "color": "#805020"} and len(written) == 5
    assert (workdir / "masks/legend.png").exists()


@pytest.mark.parametrize(
    "method",
    ["supervised", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dsr_fpa", "dacs", "dannet", "t2s_da"))],
)
def test_a_method_trains_and_predicts(method, folder, tmp_path, capsys):
    config = own_classes.config(folder, method)
    result = train(config, tmp_path / "run")["val"]
    check_run(tmp_path / "run", result, folder)
    shown = capsys.readouterr().out
    assert "classes: 5 of my_wild" in shown and "deer" in shown
    if method == "supervised":
        classes = loaded.load(tmp_path / "run").classes
        assert classes.group("static") == (0, 1, 2) and classes.group("animals") == (3,)
        assert set(classes.group("rare")) <= set(classes.group("dynamic")) == {3, 4}
        assert set(result["groups"]) == {"static", "small", "dynamic", "animals"}
        train(config, tmp_path / "run")  # Continues with what it saved, and finds nothing to do.


@pytest.mark.slow
def test_150_classes(tmp_path):
    """More classes than a word of the class mix has bits."""
    root = own_classes.write(tmp_path / "many", count=3)
    names = [f"class {k}" for k in range(150)]
    (root / "labels.json").write_text(json.dumps({str(k): name for k, name in enumerate(names)}))
    for path in (root / "labels").rglob("*.png"):
        blocks = np.random.default_rng(len(str(path))).permutation(150)[:96].astype(np.uint8).reshape(8, 12)
        cv2.imwrite(str(path), np.kron(blocks, np.ones((4, 4), np.uint8)))
    result = train(own_classes.config(root, "dacs", method__mixing__mode="dynsmall"), tmp_path / "run")["val"]
    assert list(result["iou"]) == names and len(result["support"]) == 150
    palette = loaded.load(tmp_path / "run").classes.palette
    assert len(set(palette)) == 150


@pytest.mark.slow
def test_nightlab(folder, tmp_path):
    image = own_classes.config(folder)
    train(image, tmp_path / "image")
    plain = image.to_dict()
    plain["method"] = {
        "name": "nightlab",
        "stage": "regions",
        "hard_classes": f"hard_classes:{tmp_path}/image:val:1.01",
        "detector": {"variant": "tiny", "proposals": {"before": 32, "after": 16, "total": 16}, "anchors_per_image": 32},
        "geometry": {"size": 32, "min_side": 16.0, "min_area": 4, "max_boxes": 8, "max_regions": 4},
        "sampling": {"per_image": 2},
    }
    plain["train"]["init"] = str(tmp_path / "image")
    result = train(ConfigDict(plain), tmp_path / "run")["val"]
    check_run(tmp_path / "run", result, folder)
    assert set(loaded.load(tmp_path / "run").config.method.hard_classes) <= set(range(5))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run of the source alone."""
    workdir = tmp_path_factory.mktemp("runs") / "source"
    train(own_classes.config(folder), workdir)
    return workdir


@pytest.mark.slow
def test_other_verbs(run, folder, tmp_path):
    model = api.load(run)
    assert model.classes.names == own_classes.NAMES
    export.main(
        ["export", f"--workdir={run}", f"--output={tmp_path}/out", "--size=32,48", "--batch=1", "--platforms=cpu"]
    )
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert [entry["name"] for entry in about["classes"]] == list(own_classes.NAMES)
    pseudo_label.main(
        ["pseudo-label", f"--workdir={run}", f"--images={folder}/images/night", f"--output={tmp_path}/pseudo"]
    )
    labeled = sources.open_source(f"folder:{tmp_path}/pseudo", "train", classes=model.classes)
    assert labeled.classes.names == own_classes.NAMES
    assert transforms.decode(labeled[0], ("label",), 5)["label"].max() < 5
    with pytest.raises(UserError, match="5 classes of my_wild apart, and dark_zurich"):
        submit.main(["submit", "--benchmark=dark_zurich", f"--workdir={run}", f"--output={tmp_path}/upload"])


@pytest.mark.slow
def test_fine_tuning_to_other_classes_replaces_the_classifier(run, tmp_path, capsys):
    other = own_classes.write(tmp_path / "other", count=3)
    fewer = {"10": "grass", "20": "sky", "30": "track", "40": None, "50": "void", "0": "void"}
    (other / "labels.json").write_text(json.dumps(fewer))
    train(own_classes.config(other, train__init=str(run)), tmp_path / "run")
    assert "the classifier of 5 classes is replaced by one of 3" in capsys.readouterr().out


def test_data_of_other_classes_is_one_line(folder, tmp_path):
    other = own_classes.write(tmp_path / "other", count=1)
    (other / "labels.json").write_text(json.dumps({"10": "grass", "20": "sky", "40": "cow"}))
    classes = sources.class_set(f"folder:{folder}")
    with pytest.raises(UserError, match="its classes cow are not among those of this run") as error:
        sources.open_source(f"folder:{other}", "day", classes=classes)
    assert "--config.classes.merges=\"{'other': {" in str(error.value) and "\n" not in str(error.value)
    merges = {"other": {"grass": ["grass"], "sky": ["sky"], "deer": ["cow"]}}
    source = sources.open_source(f"folder:{other}", "day", classes=classes, merges=merges)
    label = transforms.decode(source[0], ("label",), 5)["label"]
    wanted = own_classes.scene(0)
    np.testing.assert_array_equal(label, np.where(np.isin(wanted, (0, 1, 3)), wanted, 255))
    assert source.class_pixels()[0].tolist() == [int((label == k).sum()) for k in range(5)]


def test_a_merge_is_a_flag(folder):
    flag = {"classes.merges": "{'cityscapes': {'deer': ['car', 'bus'], 'sky': 'sky'}}"}
    config = settings.override(own_classes.config(folder), flag)
    assert config.classes.merges.to_dict() == {"cityscapes": {"deer": ["car", "bus"], "sky": "sky"}}
    with pytest.raises(UserError, match="classes.merges.cityscapes=7 must be a section"):
        settings.override(config, {"classes.merges": "{'cityscapes': 7}"})


def test_labels_of_some_of_the_classes_fit(folder, tmp_path):
    """Their names are all Cityscapes', so by themselves they would be of Cityscapes' set."""
    other = own_classes.write(tmp_path / "other", count=1)
    (other / "labels.json").write_text(json.dumps({"10": "Vegetation", "20": "sky"}))
    names = ("deer", "sky", "vegetation")
    classes = of_section({"names": names, "name": "mine"})
    source = sources.open_source(f"folder:{other}", "day", classes=classes)
    label = transforms.decode(source[0], ("label",), 3)["label"]
    wanted = own_classes.scene(0)
    np.testing.assert_array_equal(label, np.select([wanted == 0, wanted == 1], [2, 1], 255))


def test_what_the_config_says_is_kept(folder):
    config = own_classes.config(folder, classes__groups__rare="deer,sign", classes__groups__static=("grass",))
    found = class_sets.resolve(config)
    classes = of_section(found.classes)
    assert classes.group("rare") == (3, 4) and classes.group("static") == (0,)
    assert class_sets.resolve(config, found).to_dict() == found.to_dict()
    with pytest.raises(UserError, match="classes.groups.rare: 'dear' is no class of this run; did you mean 'deer'"):
        class_sets.resolve(own_classes.config(folder, classes__groups__rare="dear"))
