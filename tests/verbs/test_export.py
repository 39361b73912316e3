"""An exported network runs without the library and agrees with the run it comes from."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nightjax import api, export
from nightjax.core.errors import UserError
from nightjax.models import build_segmenter
from nightjax.shipping import folder, onnx_file, saved_model, stablehlo, tflite
from nightjax.shipping.network import Network
from tests.helpers import toy


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    data = toy.write_folder(tmp_path_factory.mktemp("data"), count=1)
    return toy.untrained_run(tmp_path_factory.mktemp("world") / "run", toy.config(data))


@pytest.fixture(scope="module")
def exported(run_folder):
    output = run_folder.parent / "shipped"
    export.main(["export", f"--workdir={run_folder}", f"--output={output}", "--size=32,48", "--platforms=cpu,tpu"])
    return output


def images(count):
    return np.random.default_rng(count).integers(0, 255, (count, 32, 48, 3), np.uint8)


def test_agrees_with_prediction_for_any_batch(run_folder, exported):
    model, network = api.load(run_folder), folder.load(exported)
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
def test_network_sees_what_it_sees_in_prediction(tmp_path, monkeypatch, size, flags, options):
    data = toy.write_folder(tmp_path / "data", count=1)
    config = toy.config(data, data__streams__source__resize=toy.SIZE)
    run_folder = toy.untrained_run(tmp_path / "run", config)
    model, image = api.load(run_folder), np.random.default_rng(7).integers(0, 255, (*size, 3), np.uint8)
    written = []
    monkeypatch.setattr(saved_model, "tensorflow", lambda: None)  # It need not be there.
    monkeypatch.setattr(folder, "export", lambda *args: written.append(args[2]) or {"files": {}})
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/out", f"--size={size[0]},{size[1]}"]
    export.main(["export", *arguments, *flags.split()])
    network = written[0]
    label, confidence = jax.jit(network)(network.variables, image[None])
    expected = model.predict(image, bucket=False, **options)
    np.testing.assert_array_equal(label[0], expected.label)
    np.testing.assert_allclose(confidence[0], expected.confidence, rtol=1e-4)
    seen = options.get("input_size", model.input_size(size)) or size
    assert network.size == size and network.input_size == seen


def test_needs_jax_alone(exported, tmp_path):
    program = jax.export.deserialize(bytearray((exported / "program_cpu.bin").read_bytes()))
    label, _ = program.call(dict(np.load(exported / "weights.npz")), images(2))
    np.testing.assert_array_equal(label, folder.load(exported)(images(2))[0])
    assert program.platforms == ("cpu",)
    other = jax.export.deserialize(bytearray((exported / "program_tpu.bin").read_bytes()))
    assert other.platforms == ("tpu",)
    Image.fromarray(images(1)[0]).save(tmp_path / "night.png")
    subprocess.run([sys.executable, exported / "run.py", tmp_path / "night.png"], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(Image.open(tmp_path / "night_mask.png"), folder.load(exported)(images(1))[0][0])


def test_folder_explains_itself(exported):
    about, found = (json.loads((exported / name).read_text()) for name in ("about.json", "parity.json"))
    assert about["size"] == [32, 48] and about["batch"] is None and about["method"] == "supervised"
    assert about["good_until"] > about["written"] and about["versions"]["jax"] == jax.__version__
    assert about["trained_on"] == ["folder"] and about["license"]["program"] == "Apache-2.0"
    assert list(found["files"]) == ["program_cpu.bin"]
    assert found["files"]["program_cpu.bin"]["label_agreement"] >= 0.999
    card = (exported / "README.md").read_text()
    assert about["good_until"] in card and "`program_tpu.bin` | the program for tpu" in card


def test_fixed_batch_and_sizes_are_kept(run_folder, exported, tmp_path):
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/one", "--size=32,48", "--batch=1", "--platforms=cpu"]
    export.main(["export", *arguments])
    with pytest.raises(UserError, match="1, 32, 48, 3"):
        folder.load(tmp_path / "one")(images(2))
    with pytest.raises(UserError, match="any.*resize the images"):
        folder.load(exported)(images(2)[:, :16])


def test_several_formats_are_a_folder_each(run_folder, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(saved_model, "tensorflow", lambda: None)  # It need not be there.
    monkeypatch.setattr(folder, "export", lambda *args: written.append(args[:2]) or {"files": {}})
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48"]
    export.main(["export", *arguments, "--to=stablehlo,saved_model"])
    assert [(output.name, target) for output, target in written] == [("stablehlo",) * 2, ("saved_model",) * 2]


def test_an_earlier_export_is_replaced_and_nothing_else(run_folder, exported, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    arguments = ["export", f"--workdir={run_folder}", "--size=32,48", "--batch=1", "--platforms=tpu"]
    with pytest.raises(UserError, match="no export; choose a new folder"):
        export.main([*arguments, f"--output={tmp_path}/mine"])
    assert (tmp_path / "mine" / "thesis.txt").exists()
    for platform in ("cuda", "tpu"):
        export.main([*arguments, f"--output={tmp_path}/out", f"--platforms={platform}"])
    assert not (tmp_path / "out" / "program_cuda.bin").exists()
    assert "Not checked" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match="no program for cpu"):
        folder.load(tmp_path / "out")


@pytest.mark.parametrize("options", [{}, pytest.param({"hrda": True}, marks=pytest.mark.slow)])
def test_transformers_take_any_batch_too(tmp_path, options):
    model = build_segmenter("mit_tiny", "daformer", head_embed_dim=8, head_channels=8, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)

    def apply_fn(variables, image):
        return model.apply(variables, image.astype(jnp.float32))["logits"]

    stablehlo.write(Network(apply_fn, variables, (64, 64), (64, 64)), tmp_path, platforms=["cpu"])
    program = jax.export.deserialize(bytearray((tmp_path / "program_cpu.bin").read_bytes()))
    assert str(program.in_avals[-1].shape) == "(batch, 64, 64, 3)"


def test_mistakes(run_folder, tmp_path):
    with pytest.raises(UserError, match="no exported network"):
        folder.load(run_folder)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "about.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        folder.load(broken)
    (broken / "about.json").write_text('{"target": "stablehlo"}')
    (broken / "program_cpu.bin").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="damaged"):
        folder.load(broken)
    arguments = ["export", f"--workdir={run_folder}", f"--output={tmp_path}/out"]
    for flags, words in {
        "--size=32": "height,width",
        "--size=32,48 --input_size=32": "--input_size=32 must be height,width in pixels, such as 540,960, or own",
        "--size=own": "--size=own must be height,width in pixels, such as 540,960$",
        "--size=32,48 --platforms=gpu": "'gpu' is unknown",
        "--size=32,48 --to=onxn": "--to='onxn' is unknown; did you mean 'onnx'",
        "--size=32,48 --layout=nchw": "--layout is of onnx; add --to=onnx",
        "--size=32,48 --to=onnx,stablehlo --outputs=logits": "of onnx alone",
        "--size=32,48 --check=nowhere": "--check=nowhere is no folder",
    }.items():
        with pytest.raises(UserError, match=words):
            export.main([*arguments, *flags.split()])
        assert not (tmp_path / "out").exists()


def test_each_format_is_opened_by_its_own_runtime(exported, tmp_path, monkeypatch):
    about = json.loads((exported / "about.json").read_text())
    monkeypatch.setattr(onnx_file, "open_file", lambda path: path.name)
    monkeypatch.setattr(tflite, "open_file", lambda path: path.name)
    for target, file in {"onnx": "model.onnx", "web": "model.onnx", "tflite": "model.tflite"}.items():
        (tmp_path / "about.json").write_text(json.dumps(about | {"target": target}))
        assert folder.load(tmp_path).program == file


def test_saved_model_names_the_extra(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48", "--to=saved_model"]
    with pytest.raises(UserError, match=r"nightjax\[export\]"):
        export.main(["export", *arguments])


@pytest.mark.tf
def test_saved_model_agrees(run_folder, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    arguments = ["export", f"--workdir={run_folder}", "--size=32,48", "--input_size=64,80"]
    export.main([*arguments, f"--output={tmp_path}/out", "--to=saved_model,stablehlo", "--platforms=cpu"])
    served = tensorflow.saved_model.load(f"{tmp_path}/out/saved_model/saved_model").signatures["serving_default"]
    label, confidence = folder.load(tmp_path / "out" / "stablehlo")(images(3))
    outputs = served(image=tensorflow.constant(images(3)))
    np.testing.assert_array_equal(outputs["label"].numpy(), label)
    np.testing.assert_allclose(outputs["confidence"].numpy(), confidence, rtol=1e-5)
    Image.fromarray(images(1)[0]).save(tmp_path / "night.png")
    run = tmp_path / "out" / "saved_model" / "run.py"
    subprocess.run([sys.executable, run, tmp_path / "night.png"], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(Image.open(tmp_path / "night_mask.png"), label_of(tmp_path / "out" / "stablehlo"))


def label_of(output):
    return folder.load(output)(images(1))[0][0]
