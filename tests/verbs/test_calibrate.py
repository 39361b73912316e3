"""A run is calibrated once, and everything that has confidences or leaves pixels out goes by it."""

import json
import shutil

import cv2
import numpy as np
import pytest

from nightjax import api, calibrate, evaluate, export, predict
from nightjax.core.errors import UserError
from nightjax.inference import calibrating
from nightjax.metrics.calibration import FINE
from nightjax.run import calibration, loaded
from nightjax.shipping import folder
from tests.helpers import toy


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data and an untrained run on it that has no calibration."""
    data = toy.write_folder(tmp_path_factory.mktemp("data"), count=3, references=True)
    return data, toy.untrained_run(tmp_path_factory.mktemp("runs") / "plain", toy.config(data, "dsr_fpa"))


@pytest.fixture(scope="module")
def fitted(world):
    """A copy of the run with a drawn calibration, by which about half of the pixels are right for sure."""
    _, run = world
    copy = shutil.copytree(run, run.parent / "fitted")
    model = api.load(copy)
    middle = np.median(model.predict(photo(), temperature=0.5).confidence)
    counts = np.zeros((FINE, 2), np.int64)
    counts[:, 0], counts[int(middle * FINE) :] = 1000, (0, 10)
    calibration.write(model.run, calibration.Calibration(0.5, counts))
    return copy


def photo():
    return np.random.default_rng(0).integers(0, 256, (*toy.SIZE, 3), np.uint8)


def test_what_the_day_does_not_know_is_as_right_as_it_is_sure():
    rng = np.random.default_rng(0)
    log = np.log(rng.dirichlet(np.ones(3), 4000)).astype(np.float32)
    best, sure = log.argmax(1), np.exp(log.max(1))
    truth = np.where(rng.random(4000) < 0.5, best, 255).astype(np.uint8)  # Half of them are known, and right.
    counts = calibrating.Sample(log, truth).counts(1.0)
    assert counts.sum() == 4000
    right = np.where(truth == 255, sure, 1.0)
    np.testing.assert_allclose(counts[:, 1], np.bincount((sure * FINE).astype(int), right, FINE), atol=0.51)
    alone = calibrating.Sample(log[truth < 255], truth[truth < 255])
    assert calibrating.Sample(log, truth).temperature() == alone.temperature()
    assert calibrating.Sample(log, truth).facts(1.0) == alone.facts(1.0)


def test_it_is_fitted_on_days_with_labels_and_nights_without(world, capsys, monkeypatch):
    data, run = world
    with pytest.raises(UserError, match="likelier right than wrong"):
        calibrate.main(["calibrate", f"--workdir={run}", "--images=1"])
    monkeypatch.setattr(calibrating, "LIKELIER_RIGHT", 0.0)  # Nothing is sure without training.
    calibrate.main(["calibrate", f"--workdir={run}", "--labeled=val", "--images=2"])
    said = capsys.readouterr().out
    content = json.loads((run / calibration.FILE).read_text())
    assert content["day"]["of"] == content["night"]["of"] == "folder@train"
    assert content["temperature"] == content["night"]["temperature"] != content["day"]["temperature"]
    counts = np.array(content["counts"])
    assert counts.shape == (FINE, 2) and counts.sum() > content["night"]["pixels"] > 100
    for kind in ("day", "night"):
        assert content[kind]["ece_after"] < content[kind]["ece"] + 1
    assert "--abstain=0.95" in said and "temperature" in said
    (run / calibration.FILE).unlink()


def test_labels_stay_and_confidences_are_corrected(fitted):
    plain, corrected = api.load(fitted, calibrated=False), api.load(fitted)
    for options in ({}, {"flip": True}):
        before, after = (model.predict(photo(), probabilities=True, **options) for model in (plain, corrected))
        np.testing.assert_array_equal(before.label, after.label)
        sharp = before.probabilities**2
        np.testing.assert_allclose(after.probabilities, sharp / sharp.sum(-1, keepdims=True), rtol=2e-4)
        np.testing.assert_allclose(after.confidence, after.probabilities.max(-1), rtol=1e-5)


def test_what_abstains_keeps_the_sure_pixels(world, fitted, tmp_path):
    data, _ = world
    model, image = api.load(fitted), photo()
    found = model.predict(image, bucket=False)  # As one image alone is predicted from the command line.
    expected = np.where(found.confidence < model.confident_from(0.9), 255, found.label)
    assert 0.2 < (expected == 255).mean() < 0.8
    np.testing.assert_array_equal(model.label(image, abstain=0.9, bucket=False), expected)
    cv2.imwrite(str(tmp_path / "night.png"), image[..., ::-1])
    arguments = [f"--workdir={fitted}", f"--output={tmp_path}/masks", f"--input={tmp_path}/night.png"]
    predict.main(["predict", *arguments, "--abstain=0.9"])
    mask = cv2.imread(str(tmp_path / "masks/night_trainids.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, expected)
    summary = json.loads((tmp_path / "masks/summary.json").read_text())
    assert summary["made_by"]["options"]["abstain"]["precision"] == 0.9
    assert summary["images"]["night"]["shares"]["no class"] == pytest.approx((expected == 255).mean(), abs=1e-6)
    arguments = [f"--workdir={fitted}", f"--output={tmp_path}/shipped", "--size=32,48", f"--check={data}"]
    export.main(["export", *arguments, "--platforms=cpu", "--abstain=0.9"])
    exported = folder.load(tmp_path / "shipped")
    label, confidence = exported(image[None])
    np.testing.assert_array_equal(label[0], expected)
    np.testing.assert_allclose(confidence[0], found.confidence, rtol=1e-5)
    assert exported.about["temperature"] == 0.5 and exported.about["confident"] == model.confident_from(0.9)
    assert "A label of 255 is no class" in (tmp_path / "shipped/README.md").read_text()


def test_evaluation_scores_both_kinds(fitted, capsys, tmp_path):
    evaluate.main(["evaluate", f"--workdir={fitted}", f"--output={tmp_path}/all.json"])
    result = json.loads((tmp_path / "all.json").read_text())[str(fitted)]["val"]
    assert result["calibration"]["ece"] != result["calibrated"]["ece"] and result["calibrated"]["temperature"] == 0.5
    entry = result["calibrated"]["abstain"]["0.9"]
    assert entry["threshold"] == api.load(fitted).confident_from(0.9) and 0 <= entry["precision"] <= 100
    said = capsys.readouterr().out
    assert "calibration error (ECE)" in said and "right, 0.9 asked for" in said


def test_mistakes_end_in_one_line(world, fitted, tmp_path, capsys):
    _, run = world
    model = api.load(run)
    with pytest.raises(UserError, match="nightjax calibrate"):
        model.label(photo(), abstain=0.9)
    with pytest.raises(UserError, match="below 1"):
        api.load(fitted).label(photo(), abstain=1.0)
    with pytest.raises(UserError, match="DATASET@SPLIT"):
        calibrate.main(["calibrate", f"--workdir={run}", "--pairs=nights"])
    with pytest.raises(UserError, match="--outputs=logits"):
        arguments = [f"--workdir={fitted}", f"--output={tmp_path}/x", "--size=32,48", "--to=onnx"]
        export.main(["export", *arguments, "--outputs=logits", "--abstain=0.9"])
    nothing = calibration.Calibration()
    with pytest.raises(UserError, match="most confident"):
        nothing.threshold(0.9)
    content = json.loads((fitted / calibration.FILE).read_text())
    path = run / calibration.FILE
    path.write_text(json.dumps(content | {"weights": "others"}))
    assert calibration.read(loaded.load(run)) is None and "left aside" in capsys.readouterr().out
    path.write_text(json.dumps(content | {"temperature": "warm"}))
    with pytest.raises(UserError, match="calibrate again"):
        api.load(run)
    path.unlink()
