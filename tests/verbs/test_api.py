"""The whole way of a user: train, look at the folder, load, predict, evaluate, from Python."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from nightjax import api
from nightjax.core.errors import UserError
from nightjax.inference.images import read_image
from nightjax.inference.overlay import encode_image
from tests.helpers import toy


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = toy.write_folder(tmp_path_factory.mktemp("data"), references=True)
    workdir = tmp_path_factory.mktemp("run")
    config = toy.config(data, "dacs", steps=3, eval__every=2)
    return api.train(config, workdir), workdir


def test_a_workdir_holds_what_the_readme_says(trained):
    _, workdir = trained
    names = {path.name for path in workdir.iterdir()}
    assert {
        "config.json",
        "checkpoints",
        "metrics.jsonl",
        "eval",
        "visualizations",
        "report.html",
        "tensorboard",
    } <= names
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(list(line)[0] == "step" for line in lines)
    assert any("eval/val/miou" in line for line in lines)
    result = json.loads((workdir / "eval" / "val" / "0000003.json").read_text())
    assert set(result["miou"]) == {"skip", "zero", "gt_only"}
    assert {"pa", "ca", "fwiou", "iou", "groups"} <= result.keys()
    assert list(workdir.glob("visualizations/0000003_train.png"))
    assert {"confusion", "images"} <= result.keys() and list(workdir.glob("visualizations/0000003_eval_val.png"))
    assert (
        "<svg" in (workdir / "report.html").read_text()
        and "images. Wrong pixels are red" in (workdir / "report.html").read_text()
    )
    events = b"".join(path.read_bytes() for path in (workdir / "tensorboard").iterdir())
    assert b"eval/val/iou/road" in events and b"train.steps" in events and b"eval_val" in events


def test_predict_from_array_and_file(trained, tmp_path):
    model, _ = trained
    image = np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8)
    prediction = model.predict(image)
    assert prediction.label.shape == (37, 53) and prediction.label.max() < 19
    assert prediction.confidence.min() >= 1 / 19 and prediction.confidence.max() <= 1
    (tmp_path / "image.png").write_bytes(encode_image(image))
    np.testing.assert_array_equal(model.predict(tmp_path / "image.png").label, prediction.label)
    np.testing.assert_array_equal(model.label(image), prediction.label)
    assert model.overlay(image).shape == (37, 53, 3)
    np.testing.assert_array_equal(model.label(io.BytesIO(encode_image(image))), prediction.label)
    np.testing.assert_array_equal(model.label(Image.fromarray(image)), prediction.label)


def test_a_model_says_what_it_is(trained):
    model, workdir = trained
    text = repr(model)
    assert str(workdir) in text and "step 3: dacs" in text and "M parameters" in text
    assert "19 classes: road, sidewalk, building, wall, fence, ..." in text


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_pillow_of_any_mode(mode):
    image = Image.new(mode, (6, 4))
    assert read_image(image).shape == (4, 6, 3)


def test_an_image_of_pillow_is_turned_upright():
    image = Image.new("RGB", (6, 4))
    image.getexif()[0x0112] = 6
    assert read_image(image).shape == (6, 4, 3)


@pytest.mark.parametrize("wrong", [3, io.StringIO("text"), None])
def test_what_is_no_image_is_refused(wrong):
    with pytest.raises(UserError, match="is no image"):
        read_image(wrong)


def test_pictures_are_seen_at_the_height_of_training(trained):
    model, _ = trained
    assert model.input_size((40, 60)) is None
    with model.run.config.unlocked():
        model.run.config.data.streams.target.resize = (32, 48)
    image = np.random.default_rng(1).integers(0, 255, (64, 128, 3), dtype=np.uint8)
    assert model.input_size((64, 128)) == (32, 64)
    np.testing.assert_array_equal(model.predict(image).label, model.predict(image, input_size=(32, 64)).label)
    assert (model.predict(image).confidence != model.predict(image, input_size=None).confidence).any()


def test_evaluate_repeats_the_last_evaluation(trained):
    model, workdir = trained
    before = json.loads((workdir / "eval" / "val" / "0000003.json").read_text())
    assert model.evaluate()["val"]["iou"] == before["iou"]


def test_teacher_can_be_loaded(trained):
    model, workdir = trained
    teacher = api.load(workdir, network="teacher")
    one, two = (m.run.variables["params"]["head"]["conv_seg"]["kernel"] for m in (model, teacher))
    assert np.abs(np.asarray(one) - np.asarray(two)).max() > 0


def test_get_config():
    config = api.get_config("configs/dsr_fpa.py:parts=dsr", {"train.steps": 7, "data.streams.source.resize": "64,96"})
    assert config.train.steps == 7 and config.data.streams.source.resize == (64, 96)
    assert config.method.alignment is None and config.method.bank.size == 3
    assert api.get_config("dsr_fpa:parts=dsr").train.steps == 1000
    switched = api.get_config("dsr_fpa:parts=dsr", {"method.alignment": {}, "method.bank": None})
    assert switched.method.alignment.weight == 0.1 and switched.method.bank is None
    with pytest.raises(UserError, match="did you mean 'steps'"):
        api.get_config("dsr_fpa", {"train.stesp": 7})
