"""NightLab's stages through the loop: from run to run, interrupted, evaluated, on several devices."""

import json
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from nightjax import methods
from nightjax.core import config as configs
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.run import references, settings
from nightjax.run import start as starting
from nightjax.train import compile_step, train
from tests.helpers import toy

SECTION = {
    "name": "nightlab",
    "hard_classes": (5, 6, 12, 17, 18),
    "detector": {
        "variant": "tiny",
        "optimizer": {"lr": 1e-3},
        "proposals": {"before": 16, "after": 8, "total": 8},
        "anchors_per_image": 32,
        "relabeling": {"count": 2},
    },
    "geometry": {"size": 32, "min_side": 16.0, "min_area": 4, "max_boxes": 8, "max_regions": 2},
    "sampling": {"per_image": 2, "detected": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"))


def config(root, stage, start, *, steps=4, **overrides):
    plain = toy.config(root, "supervised", steps=steps, checkpoint__every=2).to_dict()
    plain["method"] = SECTION | {"stage": stage, "start": "image" if stage == "regions" else "levels"}
    plain["train"]["init"] = str(start)
    sets = plain["eval"]["sets"]
    sets |= {f"val_{name}": sets["val"] | {"prediction": name} for name in ("image_level", "oracle_boxes")}
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return configs.override(settings.complete(ConfigDict(plain)), changes)


@pytest.fixture(scope="module")
def image_run(folder, tmp_path_factory):
    return toy.untrained_run(tmp_path_factory.mktemp("runs") / "image", toy.config(folder, "supervised"))


@pytest.fixture(scope="module")
def stages(folder, image_run, tmp_path_factory):
    """Run of each stage, and its results."""
    root, found, start = tmp_path_factory.mktemp("stages"), {}, image_run
    for stage in ("regions", "detector", "hdm"):
        results = train(config(folder, stage, start), root / stage)
        found[stage] = (root / stage, results)
        start = root / stage
    return found


@pytest.mark.slow
def test_a_stage_starts_from_the_one_before_and_changes_its_own_network(stages):
    before, after = (toy.saved_state(stages[stage][0], 4) for stage in ("detector", "hdm"))
    student = [name for name in before if "'params'" in name or "'batch_stats'" in name]
    assert len(student) > 20
    for name in student:
        assert np.array_equal(before[name], after[name]) or "'detector'" in name, name


@pytest.mark.slow
def test_results_show_the_levels_side_by_side(stages):
    workdir, results = stages["hdm"]
    assert set(results) == {"val", "val_image_level", "val_oracle_boxes"}
    assert "differing" not in results["val"]
    for name in ("val_image_level", "val_oracle_boxes"):
        assert 0 <= results[name]["differing"] <= 100 and results[name]["pixels"] == results["val"]["pixels"]
    assert "Predictions of the two levels" in (workdir / "report.html").read_text()


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(folder, stages, tmp_path):
    workdir, _ = stages["hdm"]
    saved = json.loads((workdir / "config.json").read_text())
    again = configs.from_json(json.dumps(saved))

    toy.train_until(again, tmp_path, 2)
    assert not (tmp_path / "checkpoints" / "0000004").exists()
    train(again, tmp_path)
    one, two = toy.saved_state(workdir, 4), toy.saved_state(tmp_path, 4)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.slow
def test_no_step_gathers_the_batch(folder):
    made = config(
        folder, "all", "", train__batch=8, train__devices=4, train__accumulate=2, method__sampling__detected=0.5
    )
    method, mesh = methods.build(made), sharding.make_mesh(jax.devices()[:4])
    text = compile_step(
        method, starting.abstract_state(made, method, mesh), starting.abstract_batch(made, method, mesh), mesh
    ).as_text()
    assert "all-reduce" in text
    assert not re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)


def nightlab(arguments):
    """The config as a run starts with it."""
    return settings.complete(references.resolve(settings.load(f"nightlab:{arguments}")))


def folder_of(root, name, method, iou=None):
    """What is left of a run that others start from."""
    (root / name).mkdir()
    (root / name / "config.json").write_text(json.dumps({"method": method}))
    if iou is not None:
        (root / name / "eval" / "val_night").mkdir(parents=True)
        (root / name / "eval" / "val_night" / "0000800.json").write_text(json.dumps({"iou": iou}))
    return root / name


@pytest.fixture
def image(tmp_path):
    return folder_of(tmp_path, "image", {"name": "supervised"}, {"pole": 20.0, "road": 90.0, "rider": 45.0})


def test_config_of_the_first_stage(image):
    first = nightlab(f"stage=regions,start={image}")
    assert first.method.hard_classes == (5, 12) and first.method.start == "image"
    assert nightlab(f"stage=regions,start={image},tau=0.3").method.hard_classes == (5,)
    scored = {f"{name}_{other}" for name in ("val_night", "test_night") for other in ("image_level", "oracle_boxes")}
    assert set(first.eval.sets) == scored | {"val_day"} and first.checkpoint.best == "val_night_oracle_boxes"
    assert not methods.build(first).detects
    assert first.optim.lr == nightlab("").optim.lr
    real = [nightlab(f"data=nightcity_plus{more}").optim.lr for more in ("", f",stage=regions,start={image}")]
    assert real[1] == pytest.approx(0.1 * real[0])


def test_configs_of_the_later_stages(tmp_path):
    levels = folder_of(tmp_path, "levels", {"name": "nightlab", "hard_classes": [5, 6]})
    for stage in ("detector", "hdm", "all"):
        made = nightlab(f"stage={stage},start={levels}")
        assert made.method.hard_classes == (5, 6) and made.train.init == str(levels)
        assert methods.build(made).stage == stage
        assert {"val_night", "test_night", "test_night_image_level"} <= set(made.eval.sets)
        assert made.checkpoint.best == "val_night"
        assert made.method.sampling.detected == (0.5 if stage == "all" else 0.0)
    again = nightlab(f"stage=regions,start={levels},proposals=1")
    assert again.method.sampling.detected == 0.5 and again.method.start == "levels"
    assert again.checkpoint.best == "val_night" and "val_night" in again.eval.sets
    scored = levels / "eval" / "val_night_image_level"
    scored.mkdir(parents=True)
    (scored / "0000600.json").write_text(json.dumps({"iou": {"wall": 30.0}}))
    assert nightlab(f"stage=hdm,start={levels},hard=val").method.hard_classes == (3,)


def test_published_hard_classes(image):
    big = f"data=nightcity_plus,start={image}"
    assert nightlab(f"stage=regions,{big}").method.hard_classes == (5, 6, 9, 12, 17, 18)
    assert nightlab(f"stage=regions,{big},tau=0.6").method.hard_classes == (1, 3, 5, 6, 9, 12, 17, 18)
    assert nightlab(f"stage=regions,{big},hard=6+17").method.hard_classes == (6, 17)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("stage=regions", "must be the folder"),
        ("stage=hdm,start={image}", "no setting method.hard_classes"),
        ("stage=regions,start={image}/nowhere", "holds no evaluation"),
        ("stage=hdm,start={image}/nowhere", "holds no run"),
        ("stage=hmd", "did you mean 'hdm'"),
        ("stage=regions,start={image},tau=low", "tau='low'.*float"),
        ("stage=regions,data=nightcity_plus,start={image},tau=0.45", "tau"),
        ("stage=regions,data=nightcity_plus,start={image},hard=pole", "hard=pole"),
    ],
)
def test_refused_configs(arguments, message, image):
    with pytest.raises(UserError, match=message):
        nightlab(arguments.format(image=image))
