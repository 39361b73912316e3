"""What a run left on disk: which folders are read, and which are refused in one line."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from nightjax import api, evaluate, methods
from nightjax.core import sharding
from nightjax.core.config import to_json
from nightjax.core.errors import UserError
from nightjax.run import loaded, references, settings, start
from nightjax.train import train
from tests.helpers import toy

OLD = {
    "seed": 0,
    "model": {"backbone": "resnet_tiny", "head": "fpn", "dtype": "float32"},
    "method": {"name": "dsr_fpa", "input": {"order": "rgb"}, "mask_mode": "object_groups", "fpa": True},
    "optim": {"name": "adamw", "lr": 0.001},
    "train": {"steps": 4, "batch": 4, "accumulate": 1, "devices": 1, "init": ""},
    "data": {"dir": "", "manual_dir": "", "workers": 0, "threads": 2, "streams": {}},
    "eval": {"every": 0, "which": "student", "sets": {}},
    "checkpoint": {"every": 2, "keep": 2, "best": ""},
    "log": {"every": 1},
}
"""A config as the version before methods of parts wrote it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), count=4, references=True)


@pytest.fixture(scope="module")
def workdir(root, tmp_path_factory):
    return toy.untrained_run(tmp_path_factory.mktemp("runs") / "run", toy.config(root, "dacs"))


def write(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def without(*path):
    """The old config without one of its old settings."""
    config = json.loads(json.dumps(OLD))
    del config[path[0]][path[1]]
    return config


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (OLD, "method.input"),
        (without("method", "input"), "method.mask_mode"),
        (without("eval", "which"), "method.input"),
    ],
)
def test_runs_of_earlier_versions_are_refused_in_one_line(config, key, tmp_path):
    old = write(tmp_path / "old", config)
    for read in (loaded.read_config, api.load, loaded.load):
        with pytest.raises(UserError, match=f"old is a run of an earlier version .*{key}.*train it again") as error:
            read(old)
        assert "\n" not in str(error.value)


def test_old_runs_are_refused_wherever_they_are_named(root, tmp_path):
    old = write(tmp_path / "old", OLD)
    (old / "checkpoints" / "0000004" / "state").mkdir(parents=True)
    config = toy.config(root, "dsr_fpa", train__init=str(old))
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    reference = ConfigDict({"method": {"matcher_input": f"run:{old}:model.input"}})
    for name, call in {
        "continue": lambda: train(toy.config(root, "dsr_fpa"), old),
        "evaluate": lambda: evaluate.main(["evaluate", f"--workdir={old}"]),
        "init": lambda: start.first_state(config, method, mesh),
        "reference": lambda: references.resolve(reference),
    }.items():
        with pytest.raises(UserError, match="earlier version"):
            call()
            pytest.fail(name)


def test_a_saved_config_is_complete(workdir, root):
    config = loaded.read_config(workdir)
    assert config == toy.config(root, "dacs") and settings.complete(config) == config


def test_a_config_saved_without_new_settings_gets_their_defaults(workdir, tmp_path):
    """A run of this version goes on after a setting was added."""
    plain = json.loads((workdir / "config.json").read_text())
    del plain["method"]["loss"], plain["log"], plain["data"]["threads"], plain["model"]["head_channels"]
    config = loaded.read_config(write(tmp_path / "run", plain))
    assert config.method.loss.auxiliary == 0.4 and config.log.every == 50 and config.data.threads == 2


def test_networks_by_name(workdir):
    student, teacher = (loaded.load(workdir, name) for name in ("student", "teacher"))
    assert (loaded.load(workdir).network, teacher.network, teacher.step) == ("student", "teacher", 0)
    jax.tree.map(np.testing.assert_array_equal, student.variables, teacher.variables)  # Before the first step.
    image = np.zeros((1, *toy.SIZE, 3), np.uint8)
    assert student.predict_fn(image).shape[-1] == 19
    with pytest.raises(UserError, match="no network 'image'; choose student or teacher"):
        loaded.load(workdir, "image")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no run"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ('{"model": {}}', "damaged .*'data'"),
    ],
)
def test_folders_that_hold_no_run(text, words, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=words):
        loaded.read_config(tmp_path)


def test_to_json_is_read_back(root, tmp_path):
    config = toy.config(root, "dannet")
    (tmp_path / "config.json").write_text(to_json(config))
    assert loaded.read_config(tmp_path) == config
