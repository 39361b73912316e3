"""Published checkpoints to run folders that predict, evaluate and start training, and back."""

import json

import jax
import numpy as np
import pytest

from nightjax import api, convert, methods
from nightjax.core import sharding
from nightjax.core.config import override
from nightjax.core.errors import UserError
from nightjax.core.stacks import stacks_of
from nightjax.interop.namings import lookup
from nightjax.interop.torch_weights import to_torch
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.models import build_segmenter
from nightjax.run import imported, loaded, settings, start
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
        "--height=32",
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
    names = lookup("resnet")
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


def test_a_folder_of_hugging_face_needs_no_config_and_keeps_its_meaning(tmp_path, capsys):
    folder = tmp_path / "segformer"
    folder.mkdir()
    sizes = {"hidden_sizes": (8, 8, 16, 24), "depths": (1, 1, 1, 1), "num_attention_heads": (1, 2, 4, 3)}
    names = {str(k): f"class {k}" for k in range(5)}
    about = {"model_type": "segformer", "decoder_hidden_size": 16, "id2label": names, **sizes}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 64, "image_mean": [0.5, 0.5, 0.5]}))
    options = {
        f"backbone_{ours}": sizes[theirs] for ours, theirs in zip(("dims", "depths", "heads"), sizes, strict=True)
    }
    model = build_segmenter("mit_b0", "segformer", 5, head_channels=16, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0.5, 0.1, x.shape).astype(x.dtype), shapes)
    state = lookup("huggingface_segformer").to_official(to_torch(variables, stacks_of(model.backbone, "backbone")))
    halves = [dict(part) for part in np.array_split(np.array(list(state.items()), object), 2)]
    files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for file, part in zip(files, halves, strict=True):
        save_state_dict(folder / file, part)
    index = {name: file for file, part in zip(files, halves, strict=True) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    convert.main(["convert", f"--input={folder}", f"--output={tmp_path}/run"])
    said = capsys.readouterr().out
    assert "huggingface_segformer" in said and "64 rows, as its folder says" in said
    loaded_model = api.load(tmp_path / "run")
    assert loaded_model.run.config.model.input.mean == (0.5, 0.5, 0.5)
    assert loaded_model.input_size((100, 200)) == (64, 128)
    assert loaded_model.classes.names == tuple(f"class {k}" for k in range(5))
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    pixels = (image / np.float32(255) - 0.5) / np.array([0.229, 0.224, 0.225], np.float32)
    expected = jax.jit(lambda x: model.apply(variables, x, train=False)["logits"])(pixels)
    np.testing.assert_allclose(jax.jit(loaded_model.run.predict_fn)(image), expected, rtol=1e-4, atol=1e-4)


def test_a_toy_config_says_nothing_about_the_size_of_images(world, converted):
    assert api.load(converted).input_height == 32
    config, line = imported.with_height(world.config, 0)
    assert config.eval.height == 1024 and "1024 rows" in line
    paper = settings.load("supervised:data=cityscapes_to_dark_zurich")
    config, line = imported.with_height(paper, 0)
    assert config.eval.height == 0 and "512 rows, as the config trains it" in line


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
