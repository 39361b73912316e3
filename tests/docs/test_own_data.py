"""docs/own_data.md does what it says, on a generated folder."""

import json
import re
import shlex

import cv2
import jax
import numpy as np
import pytest
from absl import flags

from nightjax import check, methods
from nightjax.core import cli, sharding
from nightjax.core import config as configs
from nightjax.data import sources, streams, transforms
from nightjax.evaluator import Evaluator
from nightjax.run import own_data, settings, start
from nightjax.train import train
from tests.helpers import toy
from tests.helpers.places import ROOT

PAGE = ROOT / "docs" / "own_data.md"
CLASSES = {"1": "road", "2": "building", "5": "car", "9": "sky"}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The page's config file, and two folders whose labels hold own values."""
    root = tmp_path_factory.mktemp("own")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(code.splitlines()) < 40
    (root / "my_night.py").write_text(code)
    for name, splits in (("my_day", ("train",)), ("my_night", ("train", "val")), ("my_night_labeled", ("train",))):
        for split in splits:
            toy.write_folder(root / name, split=split, count=3, size=(160, 288))
        for path in (root / name / "labels").rglob("*.png"):
            label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), np.array([int(value) for value in CLASSES], np.uint8)[label % 4])
        (root / name / "labels.json").write_text(json.dumps(CLASSES))
    return settings.load(f"{root}/my_night.py:steps=2,day={root}/my_day,night={root}/my_night"), root


def test_streams_and_evaluation_sets_open(example, tmp_path):
    config, _ = example
    method = methods.build(config)
    specs = start.stream_specs(config, method)
    for name, spec in specs.items():
        source = sources.open_source(spec.dataset, spec.split)
        stream = streams.make_stream(source, spec, batch_size=2, seed=0)
        batch = next(stream)
        stream.close()
        assert batch["image"].shape == (2, 128, 128, 3)
        if name == "source":
            assert set(np.unique(batch["label"])) <= {0, 2, 13, 10}
    evaluator = Evaluator(config, method, sharding.make_mesh(jax.devices()[:1]), tmp_path)
    assert evaluator.sets["night"].absent_classes == "gt_only"


@pytest.mark.slow
def test_the_example_trains_and_scores(example, tmp_path):
    config, _ = example
    result = train(settings.override(config, {"train.devices": 1}), tmp_path / "run")["night"]
    assert result["label_version"] == "folder, own" and result["classes_averaged"] == 4


def commands(page):
    """The commands of a page, a list of words each."""
    lines = page.read_text().replace("\\\n", " ").splitlines()
    verb = re.compile(r" {4}(python -m nightjax\.|nightjax )")
    return [shlex.split(verb.sub("nightjax ", line)) for line in lines if verb.match(line)]


def test_the_commands_share_one_workdir():
    used = {
        words[1]: [word for word in words if word.startswith("--workdir=")]
        for words in commands(PAGE)
        if words[1] != "check"
    }
    assert (used.get("train") or used["main"]) and set(map(tuple, used.values())) == {("--workdir=runs/my_night",)}


@pytest.mark.parametrize("page", [PAGE, PAGE.parents[1] / "README.md"], ids=["own_data", "README"])
def test_the_commands_read_labels_of_ones_own(page, example, capsys):
    """With a labels.json in each folder, as both pages allow."""
    _, root = example
    read, checked = set(), 0
    for words in commands(page):
        words = [re.sub(r"(/path/)?\b(my_(day|night_labeled|night))\b", rf"{root}/\2", word) for word in words]
        if "--data=folder" in words:
            check.main(words[1:])
            assert "no fault found" in capsys.readouterr().out
            checked += 1
        elif any(":data=folder" in word for word in words):
            values = flags.FlagValues()
            _, argv = cli.define_config(values, words[1:], settings.load, settings.override)
            cli.parse(values, argv)
            config = own_data.resolve(values["config"].value)
            used = [config.data.streams.source, config.data.streams.target, config.eval.sets.val]
            for source in (sources.open_source(section.dataset, section.split) for section in used):
                label = transforms.decode(source[0], ("image", "label"))["label"]
                assert set(np.unique(label)) <= {0, 2, 13, 10}
                read.add(source.name)
    assert checked == 1 and len(read) == 3


def test_the_commands_flags_exist(capsys):
    text = PAGE.read_text()
    folder = settings.load("dacs:data=folder")
    for key in re.findall(r"--config\.(\S+?)=", text):
        configs.check_key(folder, key)
    with pytest.raises(SystemExit):
        check.main(["check", "--help"])
    known = capsys.readouterr().out
    for flag in re.findall(r"--(\w+)=", re.search(r"nightjax\.check (.*)", text)[1]):
        assert f"\n  --{flag}=" in known
