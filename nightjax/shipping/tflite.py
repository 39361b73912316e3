# SPDX-License-Identifier: Apache-2.0
"""TFLite, by way of our own SavedModel: builtin operations alone, for phones and boards.

Its files have one number of images a call. ``model_int8.tflite`` has 8-bit weights and computes activations in 8 bits
where TFLite does so by itself; it needs no images to calibrate.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from nightjax.core.errors import UserError, first_line
from nightjax.shipping import saved_model
from nightjax.shipping.network import Network
from nightjax.shipping.parity import File

FLOAT, INT8 = "model.tflite", "model_int8.tflite"


def write(network: Network, folder: pathlib.Path, scratch: pathlib.Path) -> list[File]:
    """Writes ``model.tflite`` and ``model_int8.tflite``.

    Args:
        network: to write, with a fixed batch.
        folder: gets the files.
        scratch: a folder for files on the way.

    Returns:
        The files, to be checked.

    Raises:
        UserError: TensorFlow is not installed, or its converter fails.
    """
    scores = lambda variables, image: (network.logits(variables, image),)
    shipped, twin = scratch / "shipped", scratch / "twin"
    saved_model.save(network, network, network.names, shipped, "tflite")
    saved_model.save(network, scores, ("logits",), twin, "tflite")
    files = []
    for name, int8 in ((FLOAT, False), (INT8, True)):
        (folder / name).write_bytes(_converted(shipped, int8))
        (scratch / name).write_bytes(_converted(twin, int8))
        logits = open_file(scratch / name, ("logits",))
        program = open_file(folder / name, network.names)
        size = (folder / name).stat().st_size
        files.append(File(name, size, program, lambda image, logits=logits: logits(image)[0], int8))
    return files


def open_file(path: pathlib.Path, names: Sequence[str] = ("label", "confidence")) -> Callable[..., list[np.ndarray]]:
    """A file as a function of its image."""
    interpreter = saved_model.tensorflow().lite.Interpreter(str(path))
    run = interpreter.get_signature_runner("serving_default")

    def ask(image: np.ndarray) -> list[np.ndarray]:
        outputs = run(image=image)
        return [outputs[name].copy() for name in names]

    return ask


def _converted(saved: pathlib.Path, int8: bool) -> bytes:
    tf = saved_model.tensorflow()
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        return converter.convert()
    except Exception as error:  # The converter's own type is private.
        if type(error).__name__ != "ConverterError":
            raise
        raise UserError(
            f"TFLite's converter cannot take this network ({first_line(error)}); export it with --to=onnx, or report it"
        ) from error
