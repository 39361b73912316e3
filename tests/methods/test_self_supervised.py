"""Masked image modeling: the loss by hand, what is hidden, and runs that start from its backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.core.method import segments
from nightjax.methods.parts.masked_gradients import CHANNELS, MaskedGradients
from nightjax.ops.gradient_histograms import BINS, gradient_histograms
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


def histogram(gray):
    """Of one cell's pixels and the frame around them, by hand: float [cell + 2, cell + 2] to [BINS]."""
    votes = np.zeros(BINS)
    for i in range(1, len(gray) - 1):
        for j in range(1, len(gray) - 1):
            near = gray[i - 1 : i + 2, j - 1 : j + 2]
            across = (near[:, 0] - near[:, 2]) @ [1, 2, 1]
            down = [1, 2, 1] @ (near[0] - near[2])
            votes[int(np.floor(np.arctan2(across, down) / np.pi * BINS)) % BINS] += np.hypot(across, down)
    return votes / np.linalg.norm(votes)


def test_histograms_by_hand():
    image = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    found = gradient_histograms(jnp.asarray(image), 4)
    assert found.shape == (2, 2, 3, 3, BINS)
    framed = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for b, i, j, c in np.ndindex(2, 2, 3, 3):
        cell = framed[b, 4 * i : 4 * i + 6, 4 * j : 4 * j + 6, c]
        np.testing.assert_allclose(found[b, i, j, c], histogram(cell), atol=1e-5)


def test_histograms_know_directions_and_no_brightness():
    ramp = jnp.broadcast_to(jnp.linspace(0.1, 0.9, 8)[:, None], (8, 8))
    for turned in (ramp, ramp.T):
        image = jnp.broadcast_to(turned[None, ..., None], (1, 8, 8, 3))
        found = gradient_histograms(image, 8)
        np.testing.assert_allclose(gradient_histograms(0.01 * image, 8), found, atol=1e-5)
        np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 1, atol=1e-5)
    assert float(jnp.abs(gradient_histograms(jnp.ones((1, 8, 8, 3)), 4)).max()) == 0
    upright, level = (
        gradient_histograms(jnp.broadcast_to(x[None, ..., None], (1, 8, 8, 3)), 8) for x in (ramp, ramp.T)
    )
    assert (upright.argmax(-1) != level.argmax(-1)).all()


def test_the_loss_by_hand():
    """Hidden patches that lie inside the image count alone."""
    rng = np.random.default_rng(0)
    image, hidden = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), rng.random((2, 2, 2)) < 0.5
    part, inside = MaskedGradients(), np.ones_like(image)
    inside[:, 7:] = 0
    predicted = rng.normal(size=(2, 2, 2, 4 * CHANNELS)).astype(np.float32)
    target = np.asarray(part.targets(jnp.asarray(image), 4))
    cell = gradient_histograms(jnp.asarray(image), 2)[1, 1, 2].ravel()
    np.testing.assert_array_equal(target[1, 0, 1, 2 * CHANNELS : 3 * CHANNELS], cell)
    errors = [np.mean((predicted - target)[b, i, j] ** 2) for b, i, j in np.argwhere(hidden) if i == 0]
    assert errors and hidden[:, 1].any()
    found = part.loss(*(jnp.asarray(x) for x in (predicted, image, hidden, inside)))
    np.testing.assert_allclose(found, np.mean(errors), rtol=1e-5)
    true, completed = part.completed(jnp.asarray(target), jnp.asarray(image), jnp.asarray(hidden))
    np.testing.assert_array_equal(true, completed)
    assert true.shape == image.shape and 0 <= float(true.min()) < float(true.max()) <= 1


def test_what_is_hidden():
    hidden = MaskedGradients(ratio=0.6).hidden(jax.random.key(0), 200, (8, 12))
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
    assert set(trained) == {"backbone", "gradients"}
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
        MaskedGradients(ratio=0.0)
    with pytest.raises(UserError, match="method.masked.block=0 must be 1"):
        MaskedGradients(block=0)


@pytest.mark.parametrize("arguments", ["", "data=camvid_day_to_dusk", "data=folder", "data=cityscapes_to_dark_zurich"])
def test_the_config_reads_no_labels(arguments):
    config = settings.load(f"self_supervised:{arguments}")
    assert {name: tuple(stream.fields) for name, stream in config.data.streams.items()} == {
        "source": ("image",),
        "target": ("image",),
    }
    assert not config.eval.sets and config.model.backbone == ("dinov2_b" if "dark" in arguments else "vit_tiny")
    methods.build(config)
