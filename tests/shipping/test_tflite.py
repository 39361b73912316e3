"""TFLite files agree with nightjax."""

import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from nightjax import export
from nightjax.core.errors import UserError
from nightjax.shipping import folder, parity, tflite
from tests.helpers import toy
from tests.helpers.shipped import KINDS
from tests.helpers.shipped import network as drawn_network


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    data = toy.write_folder(tmp_path_factory.mktemp("data"), count=1)
    config = toy.config(data, model__head_channels=32)  # TFLite leaves weights of less than 1024 numbers alone.
    return toy.untrained_run(tmp_path_factory.mktemp("world") / "run", config)


def test_names_the_extra(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"nightjax\[export\]"):
        export.main(["export", f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=32,48", "--to=tflite"])


def test_a_network_that_the_converter_refuses_is_one_line(monkeypatch):
    class ConverterError(Exception):
        pass

    class Converter:
        from_saved_model = classmethod(lambda cls, *_, **__: cls())

        def convert(self):
            raise ConverterError("dimensions must match\nand more")

    fake = types.SimpleNamespace(lite=types.SimpleNamespace(TFLiteConverter=Converter))
    monkeypatch.setattr(tflite.saved_model, "tensorflow", lambda: fake)
    with pytest.raises(UserError, match=r"cannot take this network \(dimensions must match\); export it"):
        tflite._converted(pathlib.Path("saved"), int8=False)


@pytest.mark.tf
def test_float_and_8_bits_agree(run_folder, tmp_path):
    pytest.importorskip("tensorflow")
    arguments = [f"--workdir={run_folder}", f"--output={tmp_path}/out", "--size=40,56", "--input_size=32,48"]
    export.main(["export", *arguments, "--to=tflite", "--agreement=0.8"])
    found = json.loads((tmp_path / "out/parity.json").read_text())["files"]
    one, small = found["model.tflite"], found["model_int8.tflite"]
    assert one["label_agreement"] >= 0.999 and one["largest_logit_difference"] < 1e-3
    assert small["label_agreement"] > 0.8 and small["bytes"] < one["bytes"]
    exported = folder.load(tmp_path / "out")
    assert exported.about["batch"] == 1
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    with pytest.raises(UserError, match="1, 40, 56, 3"):
        exported(np.stack([photo] * 2))
    pytest.importorskip("ai_edge_litert", reason="run.py needs ai-edge-litert")
    Image.fromarray(photo).save(tmp_path / "night.png")
    subprocess.run([sys.executable, tmp_path / "out/run.py", tmp_path / "night.png"], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(Image.open(tmp_path / "night_mask.png"), exported(photo[None])[0][0])


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_convert(tmp_path, kind):
    pytest.importorskip("tensorflow")
    network = drawn_network(kind, batch=1)
    (tmp_path / "scratch").mkdir()
    files = tflite.write(network, tmp_path, tmp_path / "scratch")
    limits = parity.Limits(agreement=0.0)  # Drawn weights say nothing of 8 bits.
    found = parity.check(network, files, parity.drawn_examples((64, 96), 19), limits)
    assert found["files"]["model.tflite"]["label_agreement"] >= 0.999
