"""docs/own_data.md does what it says, on a generated folder."""

import json
import pathlib
import re

import cv2
import jax
import numpy as np
import pytest
import toy

from nightjax import methods, run
from nightjax.core import config as configs, sharding
from nightjax.data import sources, streams
from nightjax.evaluate import Evaluator
from nightjax.train import train

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "own_data.md"
CLASSES = {"1": "road", "2": "building", "5": "car", "9": "sky"}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The page's config file, and two folders whose labels hold own values."""
    root = tmp_path_factory.mktemp("own")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(code.splitlines()) < 40
    (root / "my_night.py").write_text(code)
    for name, splits in (("my_day", ("train",)), ("my_night", ("train", "val"))):
        for split in splits:
            toy.write_folder(root / name, split=split, count=3, size=(160, 288))
        for path in (root / name / "labels").rglob("*.png"):
            label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), np.array([int(value) for value in CLASSES], np.uint8)[label % 4])
        (root / name / "labels.json").write_text(json.dumps(CLASSES))
    return configs.load(f"{root}/my_night.py:steps=2,day={root}/my_day,night={root}/my_night"), root


def test_streams_and_evaluation_sets_open(example, tmp_path):
    config, _ = example
    method = methods.build(config)
    specs = run.stream_specs(config, method)
    for name, spec in specs.items():
        source = sources.open_source(spec.dataset, spec.split)
        stream = streams.make_stream(source, spec, batch_size=2, seed=0)
        batch = next(stream)
        stream.close()
        assert batch["image"].shape == (2, 128, 128, 3)
        if name == "source":
            assert set(np.unique(batch["label"])) <= {0, 2, 13, 10}
    evaluator = Evaluator(config, method, sharding.make_mesh(jax.devices()[:1]), tmp_path)
    assert evaluator.sets["night"].headline == "gt_only"


@pytest.mark.slow
def test_the_example_trains_and_scores(example, tmp_path):
    config, _ = example
    result = train(configs.override(config, {"train.devices": 1}), tmp_path / "run")["night"]
    assert result["label_version"] == "folder, own" and result["classes_averaged"] == 4


def test_the_commands_flags_exist(example):
    text = PAGE.read_text()
    folder = configs.load(str(PAGE.parents[1] / "configs/dacs.py") + ":data=folder")
    for key in re.findall(r"--config\.(\S+?)=", text):
        configs.check_key(folder, key)
    flags = (PAGE.parents[1] / "scripts" / "check_data.py").read_text()
    for flag in re.findall(r"--(\w+)=", re.search(r"check_data\.py (.*)", text)[1]):
        assert f'"--{flag}"' in flags
