"""ONNX files: they agree with nightjax, and a wrong one is not written."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from nightjax import export
from nightjax.core.errors import UserError
from nightjax.run import start
from nightjax.shipping import folder, onnx_file, parity
from tests.helpers import toy
from tests.helpers.shipped import KINDS
from tests.helpers.shipped import network as drawn_network

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def installed():
    """Skips where the converter is not installed."""
    pytest.importorskip("onnxruntime", reason="needs pip install 'nightjax[onnx]'")
    pytest.importorskip("jax2onnx", reason=f"needs pip install --no-deps {onnx_file.CONVERTER}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), count=2)


@pytest.fixture(scope="module")
def run_folder(data, tmp_path_factory):
    return toy.untrained_run(tmp_path_factory.mktemp("world") / "run", toy.config(data))


@pytest.fixture(scope="module")
def shipped(installed, run_folder, data):
    """One export with all that it can hold: another size inside, any batch, 8 bits, labels."""
    output = run_folder.parent / "shipped"
    export.main(
        ["export", f"--workdir={run_folder}", f"--output={output}", "--size=40,56", "--input_size=32,48", "--to=onnx"]
        + [f"--check={data}", f"--int8={data}/images", "--agreement=0", "--miou_loss=100"]
    )
    return output


def test_folder_explains_itself(shipped):
    about, found = (json.loads((shipped / name).read_text()) for name in ("about.json", "parity.json"))
    assert about["target"] == "onnx" and about["opset"] == 20 and about["outputs"] == ["label", "confidence"]
    assert about["size"] == [40, 56] and about["input_size"] == [32, 48] and about["batch"] is None
    assert about["classes"][0] == {"name": "road", "color": "#804080"} and len(about["classes"]) == 19
    assert about["normalization"]["mean"] == [0.485, 0.456, 0.406] and about["versions"]["jax2onnx"]
    one, small = found["files"]["model.onnx"], found["files"]["model_int8.onnx"]
    assert one["label_agreement"] >= 0.999 and one["largest_logit_difference"] < 1e-3
    assert one["miou"] == pytest.approx(found["nightjax"]["miou"], abs=0.1) and small["label_agreement"] > 0.5
    assert one["bytes"] == (shipped / "model.onnx").stat().st_size
    card = (shipped / "README.md").read_text()
    assert "pip install onnxruntime pillow" in card and "| 18 | bicycle |" in card and "`model_int8.onnx`" in card


def test_any_number_of_images_in_one_plain_graph(shipped):
    import onnx

    exported = folder.load(shipped)
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), np.uint8)
    label, confidence = exported(images)
    assert label.shape == confidence.shape == (3, 40, 56) and label.dtype == np.uint8
    np.testing.assert_array_equal(label[1:2], exported(images[1:2])[0])
    with pytest.raises(UserError, match="resize the images"):
        exported(images[:, :8])
    model = onnx.load(shipped / "model.onnx")
    assert {entry.domain for entry in model.opset_import} == {""} and not model.functions
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in model.graph.node}
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["classes"])[0]["name"] == "road"
    small = {node.op_type for node in onnx.load(shipped / "model_int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= small


def test_run_py_writes_a_mask(shipped, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "night.png")
    command = [sys.executable, str(shipped / "run.py"), str(tmp_path / "night.png")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(Image.open(tmp_path / "night_mask.png"), folder.load(shipped)(photo[None])[0][0])
    assert "%" in done.stdout


@pytest.mark.parametrize("outputs", ["label", pytest.param("logits", marks=pytest.mark.slow)])
def test_planes_of_floats(installed, run_folder, tmp_path, outputs):
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48", "--batch=2"]
    export.main(["export", *arguments, "--to=onnx", "--layout=nchw", f"--outputs={outputs}", "--opset=18"])
    exported = folder.load(tmp_path / "out")
    assert exported.about["layout"] == "nchw" and exported.about["opset"] == 18 and exported.shape() == (2, 3, 32, 48)
    answer = exported(np.zeros((2, 3, 32, 48), np.float32))
    assert answer[0].shape[:2] == ((2, 32) if outputs == "label" else (2, 19))
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "night.png")
    subprocess.run([sys.executable, tmp_path / "out/run.py", tmp_path / "night.png"], check=True)
    assert Image.open(tmp_path / "night_mask.png").size == (96, 64)


def test_a_failed_check_leaves_no_folder(installed, run_folder, tmp_path, monkeypatch, capsys):
    right = onnx_file.open_file
    monkeypatch.setattr(onnx_file, "open_file", lambda path: lambda image: [0 * part for part in right(path)(image)])
    with pytest.raises(SystemExit) as stop:
        export.main(
            ["export", f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48", "--to=onnx", "--batch=1"]
        )
    assert stop.value.code == 1 and not (tmp_path / "out").exists()
    assert "is not written: model.onnx agrees with nightjax on" in capsys.readouterr().err


@pytest.mark.slow
def test_adapters_are_merged_and_blocks_unrolled(installed, data, tmp_path, monkeypatch):
    import onnx

    model = {"backbone": "mit_tiny", "head": "segformer", "dtype": "float32", "backbone_lora_rank": 2}
    config = toy.config(data)
    config = toy.settings.complete(toy.ConfigDict(config.to_dict() | {"model": model}))
    first = start.first_state

    def trained(*args):
        """Adapters are zero at first; all weights move a little."""
        state = first(*args)
        rng = np.random.default_rng(0)
        move = lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32)
        return state.replace(params=jax.tree.map(move, state.params))

    monkeypatch.setattr(start, "first_state", trained)
    run = toy.untrained_run(tmp_path / "run", config)
    export.main(["export", f"--workdir={run}", f"--output={tmp_path}/out", "--size=32,64", "--to=onnx", "--batch=1"])
    found = json.loads((tmp_path / "out/parity.json").read_text())["files"]["model.onnx"]
    assert found["label_agreement"] >= 0.999
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    names = [weight.name for weight in graph.initializer]
    assert names and not [name for name in names if "lora" in name]
    assert not {"Loop", "Scan"} & {node.op_type for node in graph.node}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_convert(installed, tmp_path, kind):
    network = drawn_network(kind)
    (tmp_path / "scratch").mkdir()
    files = onnx_file.write(network, tmp_path, tmp_path / "scratch", opset=20, notes={"nightjax": "test"})
    found = parity.check(network, files, parity.drawn_examples((64, 96), 19), parity.Limits())
    assert found["files"]["model.onnx"]["label_agreement"] >= 0.999


@pytest.mark.slow
def test_8_bits_are_not_spent_on_the_padding_of_maxima(installed, tmp_path):
    import onnx

    network = drawn_network("fpn")  # Its stem ends with a max-pool.
    images = list(parity.drawn_examples((64, 96), 19).images)
    (tmp_path / "scratch").mkdir()
    onnx_file.write(network, tmp_path, tmp_path / "scratch", opset=20, notes={"nightjax": "test"}, calibration=images)
    graph = onnx.load(tmp_path / "model_int8.onnx").graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    scales = [constants[node.input[1]].max() for node in graph.node if node.op_type == "QuantizeLinear"]
    assert scales and max(scales) < 1e6


@pytest.mark.slow
def test_runs_where_only_the_runtime_is(shipped, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    packages = ["onnxruntime", "pillow"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "night.png")
    environment = {"PATH": "/usr/bin:/bin"}
    for model in ("model.onnx", "model_int8.onnx"):
        command = [python, shipped / "run.py", tmp_path / "night.png", model]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        expected = folder.load(shipped, model)(photo[None])[0][0]
        np.testing.assert_array_equal(Image.open(tmp_path / "night_mask.png"), expected)
    absent = subprocess.run([python, "-c", "import jax"], env=environment, check=False, capture_output=True)
    assert absent.returncode


def test_missing_packages_are_named_with_the_command(run_folder, tmp_path, monkeypatch):
    arguments = ["export", f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48", "--to=onnx"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'nightjax\[onnx\]' && pip install --no-deps jax2onnx=="):
        export.main(arguments)


def test_missing_converter_is_named_with_the_command(installed, run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"pip install --no-deps jax2onnx==\d"):
        export.main(["export", f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48", "--to=onnx"])
