"""The pages that extend nightjax: their code runs as it stands."""

import importlib
import pathlib
import re
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import config as configs
from nightjax.core import sharding
from nightjax.data import datasets, sources
from nightjax.models import BACKBONES, build_segmenter
from nightjax.run import settings, start
from nightjax.train import compile_step
from tests.helpers import toy

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def code(page):
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(source, names=None):
    """Executes a block as a module of its own, with these names; returns what it defines."""
    found = {"__name__": "extension", **(names or {})}
    exec(compile(source, "docs", "exec"), found)
    return found


@pytest.fixture
def entropy(monkeypatch):
    """The method of the page, in the table."""
    file, line, config = code("add_a_method.md")
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    module = run(file)
    run(line, {"METHODS": methods.METHODS, "Entropy": module["Entropy"]})
    return config


def one_step(config):
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    state = start.first_state(config, method, mesh)
    shapes = start.abstract_batch(config, method, mesh)
    step = compile_step(method, start.abstract_state(config, method, mesh), shapes, mesh)
    batch = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)
    return step(state, sharding.put_batch(jax.device_get(batch), mesh))


def test_a_method(entropy, tmp_path):
    config = toy.config(toy.write_folder(tmp_path, references=True), "entropy", steps=2)
    assert config.method.entropy.weight == 0.01
    state, scalars = one_step(config)
    assert int(state.step) == 1
    assert scalars["loss_entropy"] > 0
    assert scalars["loss"] == pytest.approx(scalars["loss_source"] + scalars["loss_entropy"])
    off = settings.complete(configs.override(config, {"method.entropy": "None"}))
    assert "loss_entropy" not in one_step(off)[1]


def test_the_config_of_a_method(entropy, tmp_path):
    file = tmp_path / "entropy.py"
    file.write_text(entropy)
    config = settings.load(f"{file}:data=nightstreet_tiny,steps=7")
    assert config.train.steps == 7
    assert set(config.data.streams) == {"source", "target"}
    assert len(config.method.loss.class_weights) == 19


def test_a_data_set(monkeypatch, tmp_path):
    file, line = code("add_a_dataset.md")
    (tmp_path / "wet_roads_dataset_builder.py").write_text(file)
    monkeypatch.syspath_prepend(str(tmp_path))
    table = {}
    run(line, {"BUILDERS": table})
    monkeypatch.setattr(datasets, "builder_modules", lambda: table)
    rng = np.random.default_rng(0)
    for split, count in {"train": 2, "test": 1}.items():
        for i in range(count):
            for part, high in (("images", 256), ("labels", 19)):
                shape = (64, 128, 3) if part == "images" else (64, 128)
                path = tmp_path / "wet_roads" / part / split / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), rng.integers(0, high, shape).astype(np.uint8))
    source = sources.open_source("wet_roads", "train", data_dir=str(tmp_path / "tfds"), manual_dir=str(tmp_path))
    assert len(source) == 2
    label = cv2.imread(str(tmp_path / "wet_roads/labels/train/0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(source[0]["class_pixels"], np.bincount(label.ravel(), minlength=19))
    sys.modules.pop("wet_roads_dataset_builder", None)
    importlib.invalidate_caches()


def test_a_backbone(monkeypatch):
    file, line = code("add_a_backbone.md")
    monkeypatch.setitem(BACKBONES, "plain", None)
    module = run(file)
    run(line, {"BACKBONES": BACKBONES, "Plain": module["Plain"]})
    model = build_segmenter("plain", "fpn", backbone_widths=(4, 4, 8, 8), head_channels=8)
    x = jnp.zeros((1, 32, 64, 3))
    outputs = model.apply(model.init(jax.random.key(0), x), x)
    assert outputs["stage4"].shape == (1, 1, 2, 8)
    assert outputs["logits"].shape[-1] == 19
