"""The page: what is copied in, and that onnxruntime-web answers as nightjax does."""

import json
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from nightjax import export
from nightjax.core.errors import UserError
from nightjax.shipping import folder, onnx_file, web
from tests.helpers import toy

ANSWER = """
const ort = require("./ort/ort.wasm.min.js"), fs = require("fs");
(async () => {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync("model.onnx")));
  const image = new ort.Tensor("uint8", new Uint8Array(fs.readFileSync("image.bin")), [1, 32, 48, 3]);
  fs.writeFileSync("label.bin", (await session.run({ image })).label.data);
})();
"""


def package(root, version=web.VERSION):
    """A folder like that of the npm package, with empty files."""
    (root / "dist").mkdir(parents=True)
    (root / "package.json").write_text(json.dumps({"name": web.PACKAGE, "version": version}))
    for name in web.FILES:
        (root / "dist" / name).write_bytes(b"x")
    return root


def test_the_runtime_is_copied_in_and_pinned(tmp_path):
    (tmp_path / "out").mkdir()
    web.write(tmp_path / "out", tmp_path, str(package(tmp_path / "package")))
    assert sorted(path.name for path in (tmp_path / "out/ort").iterdir()) == sorted(web.FILES)
    page = (tmp_path / "out/index.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and 'src="ort/ort.wasm.min.js"' in page
    with pytest.raises(UserError, match="is onnxruntime-web 1.2.3, and onnxruntime-web 1"):
        web.write(tmp_path / "other", tmp_path, str(package(tmp_path / "old", "1.2.3")))
    (tmp_path / "package/dist" / web.FILES[0]).unlink()
    with pytest.raises(UserError, match="has no ort.wasm.min.js"):
        web.write(tmp_path / "other", tmp_path, str(tmp_path / "package"))
    with pytest.raises(UserError, match="has no package.json"):
        web.write(tmp_path / "other", tmp_path, str(tmp_path))


def test_without_npm_the_folder_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm, which is not installed; unpack .* with --web_runtime"):
        web.write(tmp_path / "out", tmp_path, "")


@pytest.mark.onnx
@pytest.mark.slow
def test_page_is_served_and_its_network_answers_as_nightjax(tmp_path):
    pytest.importorskip("jax2onnx", reason=f"needs pip install --no-deps {onnx_file.CONVERTER}")
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("needs node and npm")
    data = toy.write_folder(tmp_path / "data", count=1)
    run, out = toy.untrained_run(tmp_path / "run", toy.config(data)), tmp_path / "out"
    export.main(["export", f"--workdir={run}", f"--output={out}", "--size=32,48", "--to=web"])
    server = subprocess.Popen([sys.executable, out / "run.py", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = server.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/ort/ort-wasm-simd-threaded.mjs") as answer:
            assert answer.headers["Content-Type"] == "text/javascript"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    finally:
        server.terminate()
        server.wait()
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    (out / "image.bin").write_bytes(image.tobytes())
    (out / "answer.cjs").write_text(ANSWER)
    subprocess.run(["node", "answer.cjs"], cwd=out, check=True)
    label = np.frombuffer((out / "label.bin").read_bytes(), np.uint8).reshape(1, 32, 48)
    np.testing.assert_array_equal(label, folder.load(out)(image)[0])
