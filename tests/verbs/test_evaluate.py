"""The evaluation protocol: windows, views, weights, UIoU, notes, several runs."""

import dataclasses
import json
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from nightjax import evaluate, evaluator
from nightjax.core import sharding
from nightjax.core.class_weights import class_weights
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data.sources import ListSource
from nightjax.metrics import confusion, protocol
from nightjax.metrics.protocol import EvalSet
from nightjax.report.run_folder import read_evaluations
from nightjax.zoo import benchmarks
from tests.helpers import toy

K = 19
WEIGHT = np.random.default_rng(0).normal(size=(3, K)).astype(np.float32)


def coarse_logits(image):
    """A "network" of stride 4 that sees where in its window a pixel lies. uint8 [B, H, W, 3] to [B, H/4, W/4, K]."""
    b, h, w, _ = image.shape
    x = image.astype(jnp.float32).reshape(b, h // 4, 4, w // 4, 4, 3).mean((2, 4)) / 50
    ramp = jnp.linspace(0, 1, w // 4)[None, None, :, None] * jnp.sin(jnp.arange(K))
    return x @ jnp.asarray(WEIGHT) + ramp


def upsample(logits, size):
    """OpenCV's bilinear resize, channel by channel: nothing of nightjax."""
    return np.stack(
        [cv2.resize(np.asarray(logits)[..., k], size[::-1], interpolation=cv2.INTER_LINEAR) for k in range(K)], -1
    )


def slow_windows(image, window, stride):
    """mmseg's loop: every window by itself, summed and divided by the number of windows over a pixel."""
    height, width = image.shape[:2]
    total, cover = np.zeros((height, width, K)), np.zeros((height, width, 1))
    rows = max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            bottom, right = min(row * stride[0] + window[0], height), min(column * stride[1] + window[1], width)
            place = np.s_[max(bottom - window[0], 0) : bottom, max(right - window[1], 0) : right]
            piece = image[place]
            total[place] += upsample(coarse_logits(piece[None])[0], piece.shape[:2])
            cover[place] += 1
    assert cover.min() >= 1
    return total / cover, rows * columns


def picture(seed, size):
    small = np.random.default_rng(seed).integers(0, 256, (size[0] // 12, size[1] // 12, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("size", "window", "stride", "number"),
    [
        ((108, 192), (108, 108), (42, 42), 3),
        ((108, 192), (40, 60), (24, 40), 20),
        pytest.param((1080, 1920), (1080, 1080), (420, 420), 3, marks=pytest.mark.slow),
    ],
)
def test_windows_equal_a_slow_reference(size, window, stride, number):
    """1080x1920 with HRDA's windows, the same at a tenth of the size, and a grid with both axes cut short."""
    images = np.stack([picture(seed, size) for seed in range(2)])
    truth = np.random.default_rng(5).integers(0, K, (2, *size)).astype(np.uint8)
    truth[:, : size[0] // 5] = 255
    eval_set = EvalSet("x", "val", mode="slide", window=window, stride=stride)
    method = SimpleNamespace(predict=lambda variables, image: coarse_logits(image))
    batch = {"image": images, "label": truth, "mask": np.ones(2, np.float32)}
    counts = jax.jit(lambda batch: evaluator.batch_outputs(method, {}, batch, eval_set)[0])(batch).confusion.total
    expected = np.zeros((K, K), np.int64)
    for image, label in zip(images, truth, strict=True):
        logits, windows = slow_windows(image, window, stride)
        assert windows == number
        np.add.at(expected, (label[label != 255], logits.argmax(-1)[label != 255]), 1)
    assert np.abs(np.asarray(counts) - expected).sum() <= 1e-4 * truth.size  # a tie or two in 20,000 pixels
    whole = evaluator.batch_outputs(method, {}, batch, EvalSet("x", "val"))[0].confusion.total
    assert np.abs(np.asarray(whole) - expected).sum() > 100


def test_scales_and_flip_average_probabilities():
    image = picture(1, (24, 48))
    rule = EvalSet("x", "val", scales=(1.0, 2.0), flip=True)
    label, confidence = protocol.predict(coarse_logits, jnp.asarray(image[None]), rule, (24, 48))
    views = []
    double = np.round(cv2.resize(image.astype(np.float32), (96, 48), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    for view in (image, double):
        for mirror in (False, True):
            seen = view[:, ::-1] if mirror else view
            logits = upsample(coarse_logits(seen[None])[0], (24, 48))
            views.append(jax.nn.softmax(logits[:, ::-1] if mirror else logits, axis=-1))
    average = np.mean(views, axis=0)
    assert (np.asarray(label[0]) == average.argmax(-1)).mean() > 0.999
    np.testing.assert_allclose(confidence[0], average.max(-1), atol=2e-3)


def test_one_view_gives_the_probability_of_its_class():
    image = picture(2, (24, 48))
    label, confidence = protocol.predict(coarse_logits, jnp.asarray(image[None]), EvalSet("x", "val"), (24, 48))
    probabilities = jax.nn.softmax(upsample(coarse_logits(image[None])[0], (24, 48)), axis=-1)
    np.testing.assert_allclose(confidence[0], probabilities.max(-1), rtol=1e-4)
    assert (np.asarray(label[0]) == np.asarray(probabilities.argmax(-1))).mean() > 0.999


def test_dannet_weights_lower_frequent_classes():
    weights = evaluator.logit_weights(EvalSet("x", "val", class_weight_std=0.16))
    np.testing.assert_allclose(weights, class_weights(np.array(CITYSCAPES.pixel_share), 0.16))
    np.testing.assert_allclose(weights[[0, 2, 17]], [0.6932401, 0.7359217, 1.2204231], atol=1e-6)
    assert evaluator.logit_weights(EvalSet("x", "val")) is None
    logits = np.zeros((1, 1, 1, K), np.float32)
    logits[..., 0], logits[..., 17] = 1.2, 1.0  # road before motorcycle, the other way round when weighted
    rule = EvalSet("x", "val", class_weight_std=0.16)
    image = jnp.zeros((1, 4, 4, 3), jnp.uint8)
    assert protocol.predict(lambda x: jnp.asarray(logits), image, rule, (4, 4))[0][0, 0, 0] == 0
    assert protocol.predict(lambda x: jnp.asarray(logits), image, rule, (4, 4), weights)[0][0, 0, 0] == 17


def test_a_protocol_states_what_it_changes():
    rule = EvalSet("x", "val", input_size=(540, 960), flip=True)
    assert rule.changes == {"dataset": "x", "split": "val", "input_size": (540, 960), "flip": True}
    assert dataclasses.replace(rule, flip=False).changes.keys() == {"dataset", "split", "input_size"}
    for wrong in (
        {"mode": "hole"},
        {"absent_classes": "best"},
        {"merge": "camvid_12"},
        {"scales": ()},
        {"scales": (0.0,)},
    ):
        with pytest.raises(UserError):
            EvalSet("x", "val", **wrong)
    with pytest.raises(UserError, match="UIoU is defined on the classes of the run"):
        EvalSet("x", "val", merge="camvid_11", uiou=True)


def painted_logits(image):
    """The class is the red value; its probability is green / 100."""
    share = image[..., 1:2].astype(jnp.float32) / 100
    return jax.nn.one_hot(image[..., 0], K) * jnp.log(18 * share / (1 - share))


def open_list(records, monkeypatch):
    monkeypatch.setattr(evaluator.sources, "open_source", lambda *args, **kwargs: ListSource(records))


def config_of(sets, streams=None):
    data = {"dir": "", "manual_dir": "", "streams": streams or {}}
    return ConfigDict({"data": data, "eval": {"network": "student", "sets": sets}, "classes": {"merges": {}}})


def painted():
    """A method whose network says what `painted_logits` says."""
    return SimpleNamespace(
        task="segmentation",
        networks=("student",),
        predictions=(),
        predict=lambda variables, image: painted_logits(image),
    )


def open_evaluator(tmp_path, sets, streams=None):
    mesh = sharding.make_mesh(jax.devices()[:1])
    return evaluator.Evaluator(config_of(sets, streams), painted(), mesh, epath.Path(tmp_path))


def four_pixels():
    """truth 0 0 1 1; predicted 0 1 1 0 with confidence .99 .3 .99 .3; the second pixel is invalid."""
    image = np.array([[[0, 99, 0], [1, 30, 0], [1, 99, 0], [0, 30, 0]]], np.uint8)
    return {
        "image_id": "four",
        "image": image,
        "label": np.array([[0, 0, 1, 1]], np.uint8),
        "invalid": np.array([[0, 1, 0, 0]], np.uint8),
    }


def test_uiou_equals_hand_numbers(tmp_path, monkeypatch, capsys):
    """Ten thresholds from 1/19 to 1: three below .3, six below .99, and 1, where everything is declined."""
    open_list([four_pixels()] * 3, monkeypatch)
    run = open_evaluator(
        tmp_path, {"night": {"dataset": "acdc/night", "split": "validation", "uiou": True, "batch": 2}}
    )
    result = run({}, 7)["night"]
    # Nothing declined: TP 1, FP 1, FN 1 in both classes.  Two declined: class 0 has TP 1, TI 1; class 1 TP 1, FI 1.
    # All declined: class 0 has TI 1, FI 1; class 1 has FI 2.
    expected = [100 / 3] * 3 + [75.0] * 6 + [25.0]
    np.testing.assert_allclose(result["uiou"]["mean"], expected, atol=1e-4)
    assert result["uiou"]["average"] == pytest.approx(57.5, abs=1e-4)
    assert result["miou"]["skip"] == pytest.approx(100 / 3) and result["pixels"] == 12
    assert json.loads((tmp_path / "eval" / "night" / "0000007.json").read_text())["uiou"] == result["uiou"]
    assert evaluator.primary_scores({"night": result})["eval/night/uiou"] == result["uiou"]["average"]
    assert "average UIoU" in capsys.readouterr().out


def test_uiou_needs_masks(tmp_path, monkeypatch):
    open_list([{key: value for key, value in four_pixels().items() if key != "invalid"}], monkeypatch)
    with pytest.raises(UserError, match="no invalid masks"):
        open_evaluator(tmp_path, {"night": {"dataset": "x", "split": "val", "uiou": True}})


def test_results_name_labels_protocol_and_what_makes_them_doubtful(tmp_path, monkeypatch, capsys):
    open_list([four_pixels()], monkeypatch)
    streams = {"source": {"dataset": "gta5+acdc/night_prepared"}, "target": {"dataset": "nexet"}}
    section = {
        "dataset": "dark_zurich/val:/data",
        "split": "validation",
        "native_size": (1080, 1920),
        "absent_classes": "zero",
    }
    result = open_evaluator(tmp_path, {"dz": section, "other": {"dataset": "x", "split": "y"}}, streams)({}, 0)["dz"]
    assert result["label_version"] == "in memory" and result["protocol"] == section
    assert len(result["notes"]) == 2
    assert (
        "labels of 1x4" in result["notes"][0]
        and "acdc/night_prepared, has frames of the same drives" in result["notes"][1]
    )
    printed = capsys.readouterr().out
    assert "! dz: labels of 1x4" in printed and "in memory" in printed
    line = next(line for line in printed.splitlines() if line.startswith("primary"))
    assert line.split() == ["primary", "zero", "*", "skip", "*"]


def test_several_runs_give_mean_and_spread(tmp_path, capsys):
    data = toy.write_folder(tmp_path / "data", count=2)
    runs = [toy.untrained_run(tmp_path / f"seed{seed}", toy.config(data, seed=seed)) for seed in (0, 1)]
    output = tmp_path / "all.json"
    evaluate.main(["evaluate", f"--workdir={runs[0]},{runs[1]}", f"--output={output}"])
    table = capsys.readouterr().out.split("mean ± standard deviation of 2 runs")[1]
    saved = json.loads(output.read_text())
    assert list(saved) == [str(run) for run in runs]
    values = [saved[str(run)]["val"]["pa"] for run in runs]
    assert values[0] != values[1]
    line = next(line for line in table.splitlines() if line.startswith("pixel accuracy"))
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in line
    assert "seeds" in table and "folder, train_ids" in table
    for run in runs:
        assert (run / "eval" / "val" / "0000000.json").exists()


def test_other_sets_than_the_runs_own():
    own = {"val": {"dataset": "folder", "split": "all"}}
    assert benchmarks.evaluation_sets("", (), own) == own
    assert list(benchmarks.evaluation_sets("", ("dark_zurich_val", "val"), own)) == ["dark_zurich_val", "val"]
    assert list(benchmarks.evaluation_sets("nightcity_plus")) == ["nightcity_plus_val"]
    assert list(benchmarks.evaluation_sets("nightstreet", ("val_day",))) == ["val_day"]
    with pytest.raises(UserError, match="did you mean 'dark_zurich_val'"):
        benchmarks.evaluation_sets("", ("dark_zurich_vall",), own)
    with pytest.raises(UserError, match="benchmark='night' is unknown"):
        benchmarks.evaluation_sets("night")


def test_sets_of_the_table_are_evaluated(tmp_path):
    data = toy.write_folder(tmp_path / "data", count=2)
    run = toy.untrained_run(tmp_path / "run", toy.config(data))
    evaluate.main(["evaluate", f"--workdir={run}", "--data=folder", f"--manual_dir={data}"])
    result = json.loads((run / "eval" / "folder.val" / "0000000.json").read_text())
    assert result["split"] == "all" and result["primary"] in confusion.POLICIES


def test_a_runs_scores_are_never_replaced_by_others(tmp_path, capsys):
    data = toy.write_folder(tmp_path / "data", count=2, references=True)
    run = toy.untrained_run(tmp_path / "run", toy.config(data, "dsr_fpa"))
    evaluate.main(["evaluate", f"--workdir={run}"])
    own = (run / "eval" / "val" / "0000000.json").read_text()
    assert json.loads(own)["network"] == "student" and "kept apart" not in capsys.readouterr().out
    evaluate.main(["evaluate", f"--workdir={run}", "--network=teacher"])
    assert f"val is not the run's own evaluation: kept apart, in {run}/eval/teacher.val" in capsys.readouterr().out
    evaluate.main(["evaluate", f"--workdir={run}", "--data=folder"])
    evaluate.main(["evaluate", f"--workdir={run}", "--data=folder", "--network=teacher"])
    assert (run / "eval" / "val" / "0000000.json").read_text() == own
    found = {path.parent.name: json.loads(path.read_text()) for path in (run / "eval").rglob("*.json")}
    assert {name: (result["network"], result["dataset"], result["split"]) for name, result in found.items()} == {
        "val": ("student", "folder", "train"),
        "teacher.val": ("teacher", "folder", "train"),
        "folder.val": ("student", "folder", "all"),
        "teacher.folder.val": ("teacher", "folder", "all"),
    }
    assert read_evaluations(run).keys() == found.keys()


def test_a_folder_of_scores_says_what_is_not_the_runs_own():
    std, large = (EvalSet(f"nightstreet/{preset}", "test_night") for preset in ("std", "large"))
    folder = evaluator.score_folder
    assert (
        folder("test_night", std, std) == folder("test_night", dataclasses.replace(std, batch=1), std) == "test_night"
    )
    assert folder("test_night", std, std, "teacher") == "teacher.test_night"
    assert folder("test_night", large, std, "student") == "student.nightstreet_large.test_night"
    assert folder("test_night", dataclasses.replace(std, flip=True), std) == "nightstreet_std.test_night"
    assert folder("val", EvalSet("folder:/my/night", "val"), None) == "folder_my_night.val"


def test_sets_known_by_name_need_no_other(tmp_path, monkeypatch):
    open_list([four_pixels()], monkeypatch)
    sets = {name: benchmarks.EVAL_SETS[name] for name in ("acdc_night_val", "dark_zurich_val")}
    own = config_of({"dark_zurich_val": sets["dark_zurich_val"] | {"flip": True}})
    mesh = sharding.make_mesh(jax.devices()[:1])
    evaluator.Evaluator(config_of(sets), painted(), mesh, epath.Path(tmp_path), own)({}, 3)
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {
        "acdc_night_val",
        "dark_zurich_val.dark_zurich_val",
    }


def test_optional_sets_whose_files_are_not_there_are_named_and_left_out(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    folder = toy.write_folder(tmp_path / "own", count=1)
    sets = {
        "own": {"dataset": f"folder:{folder}", "split": "train"},
        "nighttime_driving": benchmarks.EVAL_SETS["nighttime_driving"] | {"optional": True},
        "bdd100k_night": benchmarks.EVAL_SETS["bdd100k_night"] | {"optional": True},
    }
    config = config_of(sets)
    config.data.update({"dir": str(tmp_path / "tfds"), "manual_dir": str(tmp_path / "data")})
    config.checkpoint = {"best": ""}
    mesh = sharding.make_mesh(jax.devices()[:1])
    opened = evaluator.Evaluator(config, painted(), mesh, epath.Path(tmp_path))
    said = capsys.readouterr().out
    assert list(opened.sets) == ["own"]
    assert said.count("bdd100k_night, nighttime_driving") == 1 and "optional=false" in said
    config.eval.sets.nighttime_driving.optional = False
    with pytest.raises(UserError, match="Nighttime Driving"):
        evaluator.Evaluator(config, painted(), mesh, epath.Path(tmp_path))
    config.eval.sets.nighttime_driving.optional = True
    config.checkpoint.best = "nighttime_driving"
    with pytest.raises(UserError, match="Nighttime Driving"):
        evaluator.Evaluator(config, painted(), mesh, epath.Path(tmp_path))


def test_evaluations_on_the_way_are_one_line_each():
    """With the change since the one before, and a word about the best."""
    earlier, rows = {}, ((5, 10.0, 50.0), (10, 12.34, 49.0), (15, 12.0, None))
    lines = []
    for step, night, day in rows:
        results = {
            name: {"miou": {"skip": score}, "primary": "skip"} for name, score in (("night", night), ("day", day))
        }
        lines.append(evaluator.progress_line(step, results, earlier))
    assert lines == [
        "step 5: mIoU  night 10.0  day 50.0",
        "step 10: mIoU  night 12.3 (+2.3, best)  day 49.0 (-1.0)",
        "step 15: mIoU  night 12.0 (-0.3)",
    ]
