"""NightLab's stages through the loop: from run to run, interrupted, evaluated, on several devices."""

import json
import re

import jax
import numpy as np
import pytest

from configs import nightlab
from nightjax import methods, run
from nightjax.core import config as configs
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.train import compile_step, train
from tests.helpers import toy

SECTION = {
    "name": "nightlab",
    "hard_classes": (5, 6, 12, 17, 18),
    "detector": "tiny",
    "detector_optimizer": {"lr": 1e-3},
    "proposals": {"before": 16, "after": 8, "total": 8},
    "max_regions": 2,
    "region_size": 32,
    "min_side": 16.0,
    "min_area": 4,
    "max_boxes": 8,
    "crops": 2,
    "proposal_share": 0.0,
    "anchors": 32,
    "relabelled": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"))


def config(root, stage, start, *, steps=4, **overrides):
    made = toy.config(root, "supervised", steps=steps, checkpoint__every=2).unlock()
    made.method = SECTION | {"stage": stage, "start": "image" if stage == "regions" else "levels"}
    made.train.init = str(start)
    sets = made.eval.sets.to_dict()
    sets |= {f"val_{name}": sets["val"] | {"prediction": name} for name in ("image_level", "oracle_boxes")}
    made.eval.sets = sets
    return configs.override(made, {key.replace("__", "."): value for key, value in overrides.items()})


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
    assert "Two levels" in (workdir / "report.html").read_text()


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
    made = config(folder, "all", "", train__batch=8, train__devices=4, train__accumulate=2, method__proposal_share=0.5)
    method, mesh = methods.build(made), sharding.make_mesh(jax.devices()[:4])
    text = compile_step(
        method, run.abstract_state(made, method, mesh), run.abstract_batch(made, method, mesh), mesh
    ).as_text()
    assert "all-reduce" in text
    assert not re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)


def test_configs_of_all_stages(tmp_path):
    def start(name, method, iou=None):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"method": method}))
        if iou is not None:
            (tmp_path / name / "eval" / "val_night").mkdir(parents=True)
            (tmp_path / name / "eval" / "val_night" / "0000800.json").write_text(json.dumps({"iou": iou}))
        return tmp_path / name

    image = start("image", {"name": "supervised"}, {"pole": 20.0, "road": 90.0, "rider": 45.0})
    first = nightlab.get_config(f"stage=regions,start={image}")
    assert first.method.hard_classes == (5, 12) and first.method.start == "image"
    assert nightlab.get_config(f"stage=regions,start={image},tau=0.3").method.hard_classes == (5,)
    scored = {f"{name}_{other}" for name in ("val_night", "test_night") for other in ("image_level", "oracle_boxes")}
    assert set(first.eval.sets) == scored | {"val_day"} and first.checkpoint.best == "val_night_oracle_boxes"
    assert not methods.build(first).detects
    assert first.optim.lr == nightlab.get_config("").optim.lr
    real = [
        nightlab.get_config(f"data=nightcity_plus{more}").optim.lr for more in ("", f",stage=regions,start={image}")
    ]
    assert real[1] == pytest.approx(0.1 * real[0])
    levels = start("levels", {"name": "nightlab", "hard_classes": [5, 6]})
    for stage in ("detector", "hdm", "all"):
        made = nightlab.get_config(f"stage={stage},start={levels}")
        assert made.method.hard_classes == (5, 6) and made.train.init == str(levels)
        assert methods.build(made).stage == stage
        assert {"val_night", "test_night", "test_night_image_level"} <= set(made.eval.sets)
        assert made.checkpoint.best == "val_night" and made.method.proposal_share == 0.0
    trained = start("trained", {"name": "nightlab", "hard_classes": [5], "stage": "detector"})
    again = nightlab.get_config(f"stage=regions,start={trained}")
    assert (
        again.method.proposal_share == 0.5 and again.checkpoint.best == "val_night" and "val_night" in again.eval.sets
    )
    scored = trained / "eval" / "val_night_image_level"
    scored.mkdir(parents=True)
    (scored / "0000600.json").write_text(json.dumps({"iou": {"wall": 30.0}}))
    assert nightlab.get_config(f"stage=hdm,start={trained},hard=val").method.hard_classes == (3,)
    big = f"data=nightcity_plus,start={image}"
    assert nightlab.get_config(f"stage=regions,{big}").method.hard_classes == (5, 6, 9, 12, 17, 18)
    assert nightlab.get_config(f"stage=regions,{big},tau=0.6").method.hard_classes == (1, 3, 5, 6, 9, 12, 17, 18)
    assert nightlab.get_config(f"stage=regions,{big},hard=6+17").method.hard_classes == (6, 17)
    for argument, message in (
        ("stage=regions", "must be the folder"),
        (f"stage=hdm,start={image}", "stage=regions or later"),
        ("stage=hmd", "did you mean 'hdm'"),
        (f"stage=regions,start={image},tau=low", "must be a number"),
        (f"stage=regions,{big},tau=0.45", "tau"),
    ):
        with pytest.raises(UserError, match=message):
            nightlab.get_config(argument)
