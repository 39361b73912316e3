"""An exported network runs without the library and agrees with the run it comes from."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import api, export
from nightjax.core.errors import UserError
from nightjax.interop import export as exporting
from nightjax.models import build_segmenter
from tests.helpers import toy


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    data = toy.write_folder(tmp_path_factory.mktemp("data"), count=1)
    return toy.untrained_run(tmp_path_factory.mktemp("world") / "run", toy.config(data))


@pytest.fixture(scope="module")
def exported(run_folder):
    folder = run_folder.parent / "shipped"
    export.main(["export", f"--workdir={run_folder}", f"--output={folder}", "--size=32,48", "--platforms=cpu,tpu"])
    return folder


def images(count):
    return np.random.default_rng(count).integers(0, 255, (count, 32, 48, 3), np.uint8)


def test_agrees_with_prediction_for_any_batch(run_folder, exported):
    model, network = api.load(run_folder), exporting.load(exported)
    for count in (1, 3):
        label, confidence = network(images(count))
        assert label.dtype == np.uint8 and confidence.dtype == np.float32
        for i, image in enumerate(images(count)):
            expected = model.predict(image, bucket=False)
            np.testing.assert_array_equal(label[i], expected.label)
            np.testing.assert_allclose(confidence[i], expected.confidence, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "flags", "options"),
    [
        ((64, 96), "", {}),
        ((45, 70), "", {}),
        ((24, 100), "--input_size=own", {"input_size": None}),
        ((24, 100), "--input_size=32,32", {"input_size": (32, 32)}),
    ],
)
def test_network_sees_what_it_sees_in_prediction(tmp_path, size, flags, options):
    data = toy.write_folder(tmp_path / "data", count=1)
    config = toy.config(data, data__streams__source__resize=toy.SIZE)
    run_folder = toy.untrained_run(tmp_path / "run", config)
    model, image = api.load(run_folder), np.random.default_rng(7).integers(0, 255, (*size, 3), np.uint8)
    arguments = [
        f"--workdir={run_folder}",
        f"--output={tmp_path}/out",
        "--platforms=cpu",
        f"--size={size[0]},{size[1]}",
    ]
    export.main(["export", *arguments, *flags.split()])
    network = exporting.load(tmp_path / "out")
    label, confidence = network(image[None])
    expected = model.predict(image, bucket=False, **options)
    np.testing.assert_array_equal(label[0], expected.label)
    np.testing.assert_allclose(confidence[0], expected.confidence, rtol=1e-4)
    seen = options.get("input_size", model.input_size(size)) or size
    assert network.about["size"] == list(size) and network.about["input_size"] == list(seen)


@pytest.mark.parametrize(
    "sizes", [((54, 96), (32, 48)), ((20, 30), (96, 64)), ((64, 96), (32, 48)), ((33, 47), (33, 31))]
)
def test_bytes_are_resized_as_opencv_does(sizes):
    before, after = sizes
    images = np.random.default_rng(0).integers(0, 256, (2, *before, 3), np.uint8)
    expected = [cv2.resize(image, after[::-1], interpolation=cv2.INTER_LINEAR) for image in images]
    np.testing.assert_array_equal(exporting.resize_bytes(images, after), expected)


def test_needs_jax_alone(exported):
    program = jax.export.deserialize(bytearray((exported / "program.bin").read_bytes()))
    weights = exporting.load_state_dict(exported / "weights.safetensors")
    label, _ = program.call(weights, images(2))
    np.testing.assert_array_equal(label, exporting.load(exported)(images(2))[0])
    assert program.platforms == ("cpu", "tpu")
    about = json.loads((exported / "about.json").read_text())
    assert about["size"] == [32, 48] and about["batch"] is None and about["method"] == "supervised"


def test_fixed_batch_and_sizes_are_kept(run_folder, exported, tmp_path):
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/one", "--size=32,48", "--batch=1", "--platforms=cpu"]
    export.main(["export", *arguments])
    with pytest.raises(UserError, match="1, 32, 48, 3"):
        exporting.load(tmp_path / "one")(images(2))
    with pytest.raises(UserError, match="any.*resize the images"):
        exporting.load(exported)(images(2)[:, :16])


@pytest.mark.parametrize("options", [{}, {"hrda": True}])
def test_transformers_take_any_batch_too(tmp_path, options):
    model = build_segmenter("mit_tiny", "daformer", head_embed_dim=8, head_channels=8, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)

    def apply_fn(variables, image):
        return model.apply(variables, image.astype(jnp.float32))["logits"]

    exporting.export(tmp_path, apply_fn, variables, size=(64, 64), platforms=["cpu"])
    assert str(exporting.load(tmp_path).program.in_avals[-1].shape) == "(batch, 64, 64, 3)"


def test_mistakes(run_folder, tmp_path):
    with pytest.raises(UserError, match="no exported network"):
        exporting.load(run_folder)
    (tmp_path / "program.bin").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="damaged"):
        exporting.load(tmp_path)
    arguments = ["export", f"--workdir={run_folder}", f"--output={tmp_path}"]
    for flags, words in {
        "--size=32": "height,width",
        "--size=32,48 --input_size=32": "--input_size=32 must be height,width in pixels, such as 540,960, or own",
        "--size=own": "--size=own must be height,width in pixels, such as 540,960$",
        "--size=32,48 --platforms=gpu": "'gpu' is unknown",
        "--size=32,48 --format=onnx": "onnx",
    }.items():
        with pytest.raises(UserError, match=words):
            export.main([*arguments, *flags.split()])


def test_saved_model_names_the_extra(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}", "--size=32,48", "--format=saved_model"]
    with pytest.raises(UserError, match=r"nightjax\[export\]"):
        export.main(["export", *arguments])


@pytest.mark.tf
def test_saved_model_agrees(run_folder, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    arguments = ["export", f"--workdir={run_folder}", "--size=32,48", "--input_size=64,80"]
    export.main([*arguments, f"--output={tmp_path}/tensorflow", "--format=saved_model"])
    export.main([*arguments, f"--output={tmp_path}/jax", "--platforms=cpu"])
    served = tensorflow.saved_model.load(f"{tmp_path}/tensorflow").signatures["serving_default"]
    label, confidence = exporting.load(tmp_path / "jax")(images(3))
    outputs = served(image=tensorflow.constant(images(3)))
    np.testing.assert_array_equal(outputs["label"].numpy(), label)
    np.testing.assert_allclose(outputs["confidence"].numpy(), confidence, rtol=1e-5)
