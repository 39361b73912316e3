"""Settings that come from another run are read when a run starts, and kept when it goes on."""

import json

import pytest
from ml_collections import ConfigDict

from nightjax.core.errors import UserError
from nightjax.run import references, settings


@pytest.fixture
def other(tmp_path):
    """What is left of another run; its name holds a colon, as a bucket's does."""
    folder = tmp_path / "gs:runs"
    (folder / "eval" / "val_night").mkdir(parents=True)
    section = {"name": "nightlab", "hard_classes": [5, 6], "loss": {"focal": None, "weights": [[1, 2], [3]]}}
    (folder / "config.json").write_text(
        json.dumps({"seed": 3, "method": section, "model": {"input": {"order": "bgr"}}})
    )
    for step, pole in ((100, 90.0), (800, 20.0)):
        scores = {"iou": {"pole": pole, "road": 90.0, "rider": 45.0, "train": None}}
        (folder / "eval" / "val_night" / f"{step:07d}.json").write_text(json.dumps(scores))
    return folder


def resolved(value, saved=None, key="x"):
    config = ConfigDict({"method": {key: value}})
    return references.resolve(config, saved and ConfigDict({"method": {key: saved}})).to_dict()["method"][key]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("seed", 3),
        ("method.hard_classes", (5, 6)),
        ("method.loss.focal", None),
        ("method.loss.weights", ((1, 2), (3,))),
        ("model.input", {"order": "bgr"}),
        ("method.loss", {"focal": None, "weights": ((1, 2), (3,))}),
    ],
)
def test_a_setting_of_another_run(key, expected, other):
    assert resolved(f"run:{other}:{key}") == expected
    assert resolved(f"run:{other}@best:{key}") == expected


def test_classes_that_another_run_is_worst_at(other, capsys):
    """By its newest evaluation."""
    assert resolved(f"hard_classes:{other}:val_night:0.5") == (5, 12)
    assert resolved(f"hard_classes:{other}@best:val_night:0.3") == (5,)
    assert not capsys.readouterr().out


def test_classes_by_a_reported_set_are_announced(other, capsys):
    (other / "eval" / "val_night").rename(other / "eval" / "test_night")
    assert resolved(f"hard_classes:{other}:test_night:0.5") == (5, 12)
    assert "test_night, a set that is reported" in capsys.readouterr().out


def test_a_run_goes_on_as_it_began(other):
    """Whatever has become of the other run."""
    for reference in (f"run:{other}:method.hard_classes", f"hard_classes:{other}:val_night:0.5", "run:gone:seed"):
        assert resolved(reference, saved=(1, 2)) == (1, 2)


def test_other_texts_are_no_references(other):
    config = {
        "method": {"a": "running", "b": "run", "c": ("run:x:y",), "d": None},
        "data": {"streams": {"source": {"dataset": "run:x:y"}}},
        "train": {"init": "run:x:y", "frozen": {"aligner": "hard_classes:x:y:z"}},
        "eval": {"sets": {"val": {"dataset": "run:x:y"}}},
        "log": {"baseline": "run:x:y"},
    }
    assert references.resolve(ConfigDict(config)).to_dict() == config


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("run:{tmp}/nowhere:seed", "method.x: .*nowhere holds no run"),
        ("run:{other}:method.stage", "has no setting method.stage; it is another kind of run"),
        ("run:{other}:seed.x", "has no setting seed.x"),
        ("run:nowhere", "must be run:FOLDER:KEY"),
        ("hard_classes:{other}:val_day:0.5", "holds no evaluation"),
        ("hard_classes:{other}:val_night:0.01", "no class is below"),
        ("hard_classes:{other}:val_night:low", "must be hard_classes:FOLDER:SET:THRESHOLD"),
        ("hard_classes:val_night:0.5", "must be hard_classes:FOLDER:SET:THRESHOLD"),
    ],
)
def test_references_that_lead_nowhere(reference, words, other, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        resolved(reference.format(other=other, tmp=tmp_path))
    assert "\n" not in str(error.value)


def test_a_config_with_references_is_complete_before_and_after(other):
    config = settings.load(f"nightlab:stage=hdm,start={other}")
    assert config.method.hard_classes == f"run:{other}:method.hard_classes"
    after = settings.complete(references.resolve(config))
    assert after.method.hard_classes == (5, 6) and settings.complete(after) == after
    assert references.resolve(after) == after
