# SPDX-License-Identifier: Apache-2.0
"""``run.py`` of an export folder: about twenty lines that need the runtime and Pillow alone.

That of a page serves it, and needs Python alone.
"""

import dataclasses
import pathlib

TEMPLATE, SERVER = (pathlib.Path(__file__).with_name(name) for name in ("run.txt", "serve.txt"))


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What runs the files of a format.

    Attributes:
        package: for pip, Pillow aside.
        load: the line of Python that imports it.
        call: lines of Python from ``images`` uint8 [B, H, W, 3] to ``label`` uint8 [H, W].
    """

    package: str
    load: str
    call: str


_ONNX = """\
if about["layout"] == "nchw":
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
session = onnxruntime.InferenceSession(folder / (sys.argv[2] if len(sys.argv) > 2 else "model.onnx"))
label = session.run(about["outputs"][:1], {"image": images})[0][0]
if about["outputs"] == ["logits"]:
    label = label.argmax(0 if about["layout"] == "nchw" else -1).astype(np.uint8)
"""

_STABLEHLO = """\
platform = jax.default_backend()
if platform == "gpu":
    platform = "cuda" if (folder / "program_cuda.bin").exists() else "rocm"
program = jax.export.deserialize(bytearray((folder / f"program_{platform}.bin").read_bytes()))
label = np.asarray(program.call(dict(np.load(folder / "weights.npz")), images)[0][0])
"""

_SAVED_MODEL = """\
served = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
label = served(image=tf.constant(images))["label"].numpy()[0]
"""

_TFLITE = """\
interpreter = Interpreter(str(folder / (sys.argv[2] if len(sys.argv) > 2 else "model.tflite")))
label = interpreter.get_signature_runner("serving_default")(image=images)["label"][0]
"""

RUNTIMES = {
    "onnx": Runtime("onnxruntime", "import onnxruntime", _ONNX),
    "stablehlo": Runtime("jax", "import jax", _STABLEHLO),
    "saved_model": Runtime("tensorflow", "import tensorflow as tf", _SAVED_MODEL),
    "tflite": Runtime("ai-edge-litert", "from ai_edge_litert.interpreter import Interpreter", _TFLITE),
}
"""Format to what runs it."""


def script(target: str) -> str:
    """The text of ``run.py``."""
    if target == "web":
        return SERVER.read_text()
    runtime, text = RUNTIMES[target], TEMPLATE.read_text()
    text = text.replace("@PACKAGES@", f"{runtime.package} and pillow").replace("@IMPORT@", runtime.load)
    return text.replace("@CALL@\n", runtime.call)


def usage(target: str) -> list[str]:
    """The commands that run it."""
    if target == "web":
        return ["python run.py", "# then open http://127.0.0.1:8000 in a browser"]
    return [f"pip install {RUNTIMES[target].package} pillow", "python run.py night.jpg"]
