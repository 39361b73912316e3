"""The page: what is copied in, and that onnxruntime-web answers as nightjax does."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

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

DROP = """
const puppeteer = require("puppeteer-core"), fs = require("fs"), [browserPath, address] = process.argv.slice(2);
(async () => {
  const browser = await puppeteer.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
  const page = await browser.newPage(), said = { outside: [], failed: [] };
  page.on("request", (r) => r.url().startsWith(address) || r.url().startsWith("data:") || said.outside.push(r.url()));
  page.on("requestfailed", (r) => said.failed.push(r.url()));
  await page.goto(address);
  await page.waitForFunction(() => document.getElementById("status").textContent === "Ready.", { timeout: 120000 });
  await page.evaluate((text) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0)), transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "night.png", { type: "image/png" }));
    const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.getElementById("drop").dispatchEvent(event);
  }, fs.readFileSync("night.png").toString("base64"));
  await page.waitForFunction(() => window.answer, { timeout: 120000 });
  fs.writeFileSync("label.bin", Buffer.from(await page.evaluate(() => Array.from(window.answer.label))));
  said.status = await page.$eval("#status", (one) => one.textContent);
  said.legend = await page.$eval("#legend", (one) => one.textContent);
  said.isolated = await page.evaluate(() => crossOriginIsolated);
  fs.writeFileSync("said.json", JSON.stringify(said));
  await browser.close();
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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("jax2onnx", reason=f"needs pip install --no-deps {onnx_file.CONVERTER}")
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("needs node and npm")
    root = tmp_path_factory.mktemp("world")
    data = toy.write_folder(root / "data", count=1)
    run, out = toy.untrained_run(root / "run", toy.config(data)), root / "out"
    export.main(["export", f"--workdir={run}", f"--output={out}", "--size=32,48", "--to=web"])
    return out


@contextlib.contextmanager
def served(exported):
    server = subprocess.Popen([sys.executable, exported / "run.py", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


IMAGE = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)


@pytest.mark.onnx
@pytest.mark.slow
def test_the_server_sends_what_browsers_want(exported):
    with served(exported) as address, urllib.request.urlopen(f"{address}/ort/{web.FILES[1]}") as answer:
        assert address.startswith("http://127.0.0.1:")
        assert answer.headers["Content-Type"] == "text/javascript"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


@pytest.mark.onnx
@pytest.mark.slow
def test_the_runtime_answers_as_nightjax(exported):
    (exported / "image.bin").write_bytes(IMAGE.tobytes())
    (exported / "answer.cjs").write_text(ANSWER)
    subprocess.run(["node", "answer.cjs"], cwd=exported, check=True)
    label = np.frombuffer((exported / "label.bin").read_bytes(), np.uint8).reshape(1, 32, 48)
    np.testing.assert_array_equal(label, folder.load(exported)(IMAGE)[0])


@pytest.mark.onnx
@pytest.mark.slow
def test_a_browser_segments_a_dropped_photo_and_asks_nobody_else(exported, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs Chromium")
    environment = os.environ | {"PUPPETEER_SKIP_DOWNLOAD": "1"}
    install = ["npm", "install", "--silent", "puppeteer-core@24.43.1"]
    subprocess.run(install, cwd=tmp_path, env=environment, check=True)
    Image.fromarray(IMAGE[0]).save(tmp_path / "night.png")
    (tmp_path / "drop.cjs").write_text(DROP)
    with served(exported) as address:
        subprocess.run(["node", "drop.cjs", browser, address], cwd=tmp_path, check=True)
    label = np.frombuffer((tmp_path / "label.bin").read_bytes(), np.uint8).reshape(1, 32, 48)
    np.testing.assert_array_equal(label, folder.load(exported)(IMAGE)[0])
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["outside"] == [] and said["failed"] == [] and said["isolated"]
    assert said["status"].startswith("night.png:") and "%" in said["legend"]
