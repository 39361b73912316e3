"""The network that comes with nightjax: small, whole, and of use without a run."""

import json

import jax
import numpy as np
import pytest

from nightjax import api, bundled, calibrate, evaluator, methods, predict
from nightjax.core import sharding
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.metrics import confusion
from nightjax.nightstreet.examples import example
from nightjax.run import settings, start


@pytest.fixture(scope="module")
def model():
    return api.load()


def test_it_is_small_and_has_a_card_and_examples():
    size = sum(path.stat().st_size for path in bundled.NETWORK.rglob("*") if path.is_file())
    assert size < 2e6 and len(bundled.EXAMPLES) == 3
    assert "It must not steer anything" in (bundled.NETWORK.parent / "README.md").read_text()


def test_it_was_trained_on_rendered_streets_alone():
    config = json.loads((bundled.NETWORK / "config.json").read_text())
    used = "+".join(stream["dataset"] for stream in config["data"]["streams"].values()).split("+")
    assert {name.partition("/")[0] for name in used} == {"nightstreet"} and not config["train"]["init"]


def test_it_segments_streets_it_has_not_seen(model):
    """Its card says 79.4 % of the pixels of test_night; the largest class alone would give about a third."""
    assert model.classes.names == CITYSCAPES.names
    right = []
    for k in range(2):
        drawn = example("val_night", k, size=(128, 256))
        label, known = model.label(drawn["image"]), drawn["label"] != 255
        right.append(np.mean(label[known] == drawn["label"][known]))
    assert np.mean(right) > 0.7


def test_predict_takes_it_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    predict.main(["predict", f"--input={bundled.EXAMPLES[0]}"])
    assert "comes with nightjax" in capsys.readouterr().out
    assert (tmp_path / "predictions" / "0_overlay.jpg").exists()


def test_a_run_starts_from_it(model):
    config = settings.load("configs/supervised.py:data=nightstreet_tiny,exposure=1,steps=4")
    config = settings.override(config, {"train.init": "bundled"})
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    params = start.first_state(config, method, mesh).params["student"]
    jax.tree.map(np.testing.assert_array_equal, params, model.run.variables["params"])


def test_evaluation_leaves_its_folder_alone(model, monkeypatch, tmp_path):
    assert bundled.holds(bundled.NETWORK) and not bundled.holds(tmp_path)
    before = sorted(bundled.NETWORK.rglob("*"))
    monkeypatch.setattr(evaluator.Evaluator, "_open", lambda self, eval_set: None)
    monkeypatch.setattr(evaluator.Evaluator, "_evaluate", lambda self, name, *_: scores)
    counts = np.eye(19, dtype=np.int64)
    scores = confusion.summarize(counts, CITYSCAPES.names)
    assert set(model.evaluate()) == {"val_night", "test_night", "val_day"}
    assert sorted(bundled.NETWORK.rglob("*")) == before
    with pytest.raises(UserError, match="copy it"):
        calibrate.main(["calibrate", f"--workdir={bundled.NETWORK}"])
