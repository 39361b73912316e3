"""Masked image modeling: the loss by hand, what is hidden, and runs that start from its backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.core.method import segments
from nightjax.methods.parts.masked_pixels import MaskedPixels
from nightjax.ops.patches import from_patches, to_patches
from nightjax.run import loaded, settings, start
from nightjax.train import train
from tests.helpers import toy
from tests.helpers.methods import changed, distance

MODEL = {
    "backbone": "vit_tiny",
    "backbone_dim": 24,
    "backbone_depth": 2,
    "backbone_layers": (0, 1),
    "backbone_fit": "pad",
    "head": "bn_linear",
    "head_stages": ("stage1", "stage2"),
    "dtype": "float32",
}


def config(folder, method, model=MODEL, **overrides):
    """Days and nights of the folder, as images alone where nothing is labeled."""
    plain = toy.config(folder, "dacs").to_dict()
    plain["model"], plain["method"], plain["train"]["frozen"] = dict(model), {"name": method}, {}
    if method == "self_supervised":
        plain["eval"]["sets"] = {}
        for stream in plain["data"]["streams"].values():
            stream["fields"] = ("image",)
    complete = settings.complete(toy.ConfigDict(plain))
    return settings.override(complete, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True, size=(36, 52))


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory):
    """A few steps on crops that are no whole patches; gradients of two microbatches are added."""
    workdir = tmp_path_factory.mktemp("pretrained")
    crop = {f"data__streams__{name}__crop": (36, 52) for name in ("source", "target")}
    train(config(folder, "self_supervised", train__steps=4, train__accumulate=2, **crop), workdir)
    return workdir


def first_state(whole):
    method = methods.build(whole)
    return method, start.first_state(whole, method, sharding.make_mesh(jax.devices()[:1]))


def test_patches():
    image = jnp.arange(2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    patches = to_patches(image, 4)
    np.testing.assert_array_equal(patches[1, 1, 2].reshape(4, 4, 3), image[1, 4:8, 8:12])
    np.testing.assert_array_equal(from_patches(patches, 4), image)


def test_the_loss_by_hand():
    """Hidden pixels inside the image alone count, each patch normalized by itself."""
    rng = np.random.default_rng(0)
    image, hidden = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), rng.random((2, 2, 2)) < 0.5
    predicted = rng.normal(size=(2, 2, 2, 48)).astype(np.float32)
    inside = np.ones_like(image)
    inside[:, 7:] = 0
    errors = []
    for b, i, j in np.argwhere(hidden):
        patch = image[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        rows = 3 if i else 4
        errors.append(np.abs(predicted[b, i, j].reshape(4, 4, 3) - target)[:rows].ravel())
    part = MaskedPixels()
    found = part.loss(*(jnp.asarray(x) for x in (predicted, image, hidden, inside)))
    np.testing.assert_allclose(found, np.concatenate(errors).mean(), rtol=1e-5)
    plain = MaskedPixels(normalized=False).loss(to_patches(jnp.asarray(image), 4), image, hidden, inside)
    assert plain == 0

    target, _, _ = part.targets(jnp.asarray(image), 4)
    np.testing.assert_allclose(part.completed(target, image, hidden), image, atol=1e-5)


def test_what_is_hidden():
    hidden = MaskedPixels(ratio=0.6).hidden(jax.random.key(0), 200, (8, 12))
    assert hidden.shape == (200, 8, 12) and abs(float(hidden.mean()) - 0.6) < 0.02
    blocks = hidden.reshape(200, 4, 2, 6, 2)
    np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:, :, :1, :, :1], blocks.shape))
    assert (hidden[0] != hidden[1]).any()


def test_hidden_pixels_change_nothing_but_the_target(folder):
    """The network sees none of them, and microbatches do not change which they are."""
    whole = config(folder, "self_supervised")
    method, state = first_state(whole)
    shapes = start.batch_shapes(start.stream_specs(whole, method), 2)
    rng = np.random.default_rng(0)
    batch = {name: {"image": rng.integers(0, 255, part["image"].shape, np.uint8)} for name, part in shapes.items()}

    @jax.jit
    def run(params, image, hidden):
        return method.prediction(params, image, hidden, jax.random.key(0))[0]

    examples = method.examples(batch, method.training.keys(state))
    more = changed(method, training__accumulate=2)
    np.testing.assert_array_equal(more.examples(batch, more.training.keys(state))["hidden"], examples["hidden"])
    assert examples["image"].shape == (4, *toy.SIZE, 3) and examples["hidden"].shape == (4, 4, 6)
    np.testing.assert_array_equal(examples["image"][::2], batch["source"]["image"] / np.float32(255))
    pixels = np.repeat(np.repeat(examples["hidden"], 8, 1), 8, 2)[..., None]
    other = jnp.where(pixels, 1 - examples["image"], examples["image"])
    params = state.params["student"]
    np.testing.assert_array_equal(
        run(params, examples["image"], examples["hidden"]), run(params, other, examples["hidden"])
    )
    shown = method.visualizations(state, batch)
    assert {image.shape for image in shown.values()} == {(4, *toy.SIZE, 3)}


@pytest.mark.parametrize("name", ["supervised", pytest.param("dacs", marks=pytest.mark.slow)])
def test_a_run_starts_from_it(folder, pretrained, name, capsys):
    """The backbone is the one that was trained, and the head is the one of the seed."""
    _, fresh = first_state(config(folder, name))
    method, state = first_state(config(folder, name, train__init=str(pretrained)))
    assert "head not in it, from scratch" in capsys.readouterr().out
    trained = loaded.load(pretrained).variables["params"]
    assert set(trained) == {"backbone", "pixels"}
    own = method.variables(state)["params"]
    assert distance(own["backbone"], trained["backbone"]) == 0
    assert distance(own["backbone"], fresh.params["student"]["backbone"]) > 0
    assert distance(own["head"], fresh.params["student"]["head"]) == 0


@pytest.mark.slow
def test_a_supervised_run_of_its_own(folder, pretrained, tmp_path):
    results = train(config(folder, "supervised", train__init=str(pretrained), train__steps=2), tmp_path)
    assert np.isfinite(results["val"]["miou"][results["val"]["primary"]])


@pytest.mark.slow
def test_adapters_on_it(folder, pretrained, tmp_path):
    """The backbone stays as it was trained, out of the checkpoints, and is found again."""
    whole = config(
        folder, "supervised", MODEL | {"backbone_lora_rank": 2}, train__init=str(pretrained), train__steps=2
    ).to_dict()
    whole["optim"]["groups"] = ({"pattern": "/lora_"}, {"pattern": "^backbone/", "trained": False})
    train(settings.complete(toy.ConfigDict(whole)), tmp_path)
    assert not any("patch_embed" in name for name in toy.saved_state(tmp_path, 2))
    own, trained = (loaded.load(run).variables["params"]["backbone"] for run in (tmp_path, pretrained))
    assert distance(own["patch_embed"], trained["patch_embed"]) == 0
    assert distance(own["blocks"]["attn"]["qkv"], trained["blocks"]["attn"]["qkv"]) == 0


def test_it_predicts_nothing(pretrained):
    with pytest.raises(UserError, match="this run is for pretraining: it is used by train.init of other runs"):
        segments(loaded.load(pretrained).method)


def test_mistakes(folder):
    with pytest.raises(UserError, match="a mask token, which the model has not"):
        first_state(config(folder, "self_supervised", model=toy.config(folder).model.to_dict()))
    with pytest.raises(UserError, match="method.masked.ratio=0.0 must be above 0"):
        MaskedPixels(ratio=0.0)
    with pytest.raises(UserError, match="method.masked.block=0 must be 1"):
        MaskedPixels(block=0)


@pytest.mark.parametrize("arguments", ["", "data=camvid_day_to_dusk", "data=folder", "data=cityscapes_to_dark_zurich"])
def test_the_config_reads_no_labels(arguments):
    config = settings.load(f"self_supervised:{arguments}")
    assert {name: tuple(stream.fields) for name, stream in config.data.streams.items()} == {
        "source": ("image",),
        "target": ("image",),
    }
    assert not config.eval.sets and config.model.backbone == ("dinov2_b" if "dark" in arguments else "vit_tiny")
    methods.build(config)
