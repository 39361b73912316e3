"""Published checkpoints to run folders that predict, evaluate and start training, and back."""

import jax
import numpy as np
import pytest

from nightjax import api, convert, methods
from nightjax.core import sharding
from nightjax.core.config import override
from nightjax.core.errors import UserError
from nightjax.interop.namings import find
from nightjax.interop.torch_weights import to_torch
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.run import loaded, start
from tests.helpers import toy

CONFIG = "from tests.helpers import toy\ndef get_config():\n    return toy.config({data!r}, {method!r})\n"


class World:
    """A config file and the state dict of a random network of it, under our names."""

    def __init__(self, folder, method):
        self.folder = folder
        self.data = toy.write_folder(folder / "data", count=1, references=True)
        self.config = toy.config(self.data, method)
        (folder / "cfg.py").write_text(CONFIG.format(data=str(self.data), method=method))
        self.method = methods.build(self.config)
        self.mesh = sharding.make_mesh(jax.devices()[:1])
        shapes = self.method.variables(start.abstract_state(self.config, self.method, self.mesh))
        rng = np.random.default_rng(0)
        self.variables = jax.tree.map(lambda x: rng.normal(0.5, 0.1, x.shape).astype(x.dtype), shapes)
        self.state = to_torch(self.variables, counters=True)

    def convert(self, *flags):
        convert.main(["convert", *flags])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"), "supervised")


@pytest.fixture(scope="module")
def converted(world):
    save_state_dict(world.folder / "all.safetensors", world.state)
    flags = (
        f"--input={world.folder}/all.safetensors",
        f"--config={world.folder}/cfg.py",
        f"--output={world.folder}/run",
    )
    world.convert(*flags)
    return world.folder / "run"


def test_a_converted_folder_predicts(world, converted):
    image = np.random.default_rng(0).integers(0, 255, (*toy.SIZE, 3), np.uint8)
    logits = world.method.predict(world.variables, image[None])
    model = api.load(converted)
    np.testing.assert_array_equal(model.run.predict_fn(image[None]), logits)
    assert model.predict(image).label.shape == toy.SIZE and model.run.step == 0
    assert model.run.config.train.init.endswith("all.safetensors")


def test_training_starts_from_it(world, converted):
    config = override(toy.config(world.data), {"train.init": str(converted)})
    state = start.first_state(config, methods.build(config), world.mesh)
    jax.tree.map(np.testing.assert_array_equal, state.params["student"], world.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats["student"], world.variables["batch_stats"])


def test_export_gives_the_file_back(world, converted, capsys):
    path = world.folder / "back.npz"
    world.convert(f"--export={converted}", "--naming=refign", f"--output={path}")
    back = load_state_dict(path)
    assert back.keys() == world.state.keys()
    for name, value in world.state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    assert "sha256" in capsys.readouterr().out


def test_backbone_alone(world, capsys):
    names = find("resnet")
    backbone = names.to_official({n: v for n, v in world.state.items() if n.startswith("backbone.")})
    save_state_dict(world.folder / "backbone.npz", backbone | {"fc.weight": np.zeros((10, 3), np.float32)})
    flags = (f"--input={world.folder}/backbone.npz", f"--config={world.folder}/cfg.py", f"--output={world.folder}/init")
    with pytest.raises(UserError, match=r"missing.*head\.\*"):
        world.convert(*flags)
    assert not (world.folder / "init").exists()
    world.convert(*flags, "--allow_missing=head.*", "--config.seed=3")
    said = capsys.readouterr().out
    assert "resnet" in said and "not used: fc.*" in said and "from seed 3: head.*" in said
    params = api.load(world.folder / "init").run.variables["params"]
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], world.variables["params"]["backbone"])
    init = start.init_fn(override(toy.config(world.data), {"seed": 3}), world.method)
    fresh = jax.jit(lambda: world.method.variables(init())["params"]["head"])()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params["head"], fresh)


def test_student_and_teacher_are_both_there(tmp_path):
    world = World(tmp_path, "dacs")
    save_state_dict(tmp_path / "x.npz", world.state)
    world.convert(f"--input={tmp_path}/x.npz", f"--config={tmp_path}/cfg.py", f"--output={tmp_path}/run")
    for network in ("student", "teacher"):
        variables = loaded.load(tmp_path / "run", network).variables
        jax.tree.map(np.testing.assert_array_equal, variables, world.variables)


def test_list_and_mistakes(world, converted, capsys):
    world.convert("--list")
    assert "huggingface_segformer" in capsys.readouterr().out
    given = f"--input={world.folder}/all.safetensors"
    for flags, words in (
        ((given, f"--output={world.folder}/new"), "--config is missing"),
        ((f"--config={world.folder}/cfg.py", f"--output={world.folder}/new"), "--input is missing"),
        ((given, f"--config={world.folder}/cfg.py", f"--output={converted}"), "holds a run"),
        (
            (given, f"--config={world.folder}/cfg.py", f"--output={world.folder}/new", "--naming=refgn"),
            "did you mean 'refign'",
        ),
        ((given, f"--config={world.folder}/cfg.py", f"--output={world.folder}/new", "--network=teacher"), "no teacher"),
        ((f"--export={converted}", f"--output={world.folder}/x.npz"), "--naming is missing"),
        ((f"--export={converted}", "--naming=mit", f"--output={world.folder}/x.npz"), "has no names for"),
        ((f"--export={converted}", "--naming=refign", f"--output={world.folder}/x.h5"), "end its name in"),
        ((f"--export={world.folder}", "--naming=refign", f"--output={world.folder}/x.npz"), "holds no run"),
    ):
        with pytest.raises(UserError, match=words):
            world.convert(*flags)
    assert not (world.folder / "new").exists()
