# SPDX-License-Identifier: Apache-2.0
"""ONNX: one file that onnxruntime, TensorRT, OpenVINO and browsers read.

jax2onnx converts two functions, the network up to its logits and what makes labels of them; the two graphs become one,
and onnxruntime's basic pass removes what JAX's order of axes left behind. 8-bit programs quantize the first part
alone: the second has few operations, and errors there change labels.
"""

import importlib
import logging
import pathlib
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np

from nightjax.core import targets
from nightjax.core.errors import UserError
from nightjax.shipping.network import Network
from nightjax.shipping.parity import File, in_layout

CONVERTER = "jax2onnx==0.17.1"
"""It pins an older orbax, which it never imports, so it is installed without its requirements."""

FLOAT, INT8 = "model.onnx", "model_int8.onnx"


def write(
    network: Network,
    folder: pathlib.Path,
    scratch: pathlib.Path,
    *,
    opset: int,
    notes: dict[str, str],
    calibration: Sequence[np.ndarray] = (),
) -> list[File]:
    """Writes ``model.onnx``, and ``model_int8.onnx`` if there are images to calibrate it with.

    Args:
        network: to write.
        folder: gets the files.
        scratch: a folder for files on the way; the returned programs need it.
        opset: of ONNX.
        notes: key to value, kept in the files as metadata.
        calibration: uint8 [H, W, 3] of the program's size, unlabeled, from where the network will work.

    Returns:
        The files, to be checked.

    Raises:
        UserError: a package is missing, or the converter does not know an operation of the network.
    """
    check_packages()
    image, front = network.image(), scratch / "front.onnx"
    if network.outputs == "logits":
        _convert(lambda x: network(network.variables, x), image, "image", ["logits"], opset, front)
        parts = [front]
    else:
        logits = lambda x: network.logits(network.variables, x)
        scores = jax.eval_shape(logits, image)
        back = scratch / "back.onnx"
        _convert(logits, image, "image", ["scores"], opset, front)
        _convert(network.answers, scores, "scores", network.names, opset, back)
        _simplify(back, back)
        parts = [front, back]
    whole = _joined(parts, scratch / "whole.onnx")
    _simplify(whole, whole)
    _simplify(front, front)
    files = [_finished(network, whole, front, folder / FLOAT, notes)]
    if calibration:
        small = scratch / "front_int8.onnx"
        _quantize(front, small, [in_layout(network, night) for night in calibration])
        whole = _joined([small, *parts[1:]], scratch / "whole_int8.onnx")
        files.append(_finished(network, whole, small, folder / INT8, notes, int8=True))
    return files


def open_file(path: pathlib.Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A file as a function of its image."""
    session = _package("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def versions() -> dict[str, str]:
    """Of the packages that wrote a file."""
    return {name: metadata.version(name) for name in ("jax2onnx", "onnx", "onnxruntime")}


def check_packages() -> None:
    """Looks whether everything that `write` needs is installed.

    Raises:
        UserError: a package is missing; the message has the command that installs it.
    """
    for name in ("onnx", "onnxruntime", "jax2onnx"):
        _package(name)


def _package(name: str) -> Any:
    """A module of an extra package, imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        rest = f"pip install --no-deps {CONVERTER}"
        if (error.name or name).partition(".")[0] == "jax2onnx":
            raise UserError(f"ONNX needs the converter jax2onnx, without what it pins: {rest}") from error
        raise UserError(f"ONNX needs {error.name or name}: pip install 'nightjax[onnx]' && {rest}") from error


def _convert(
    function: Callable[..., Any],
    taken: jax.ShapeDtypeStruct,
    name: str,
    given: Sequence[str],
    opset: int,
    path: pathlib.Path,
) -> None:
    # It says of constants without a shape that they have none, once for each.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        _package("jax2onnx").to_onnx(
            targets.written_for("onnx", function),
            inputs=[taken],
            input_names=[name],
            output_names=list(given),
            opset=opset,
            normalization_mode="prefer_native",
            export_mode="web",  # One file, weights inside.
            return_mode="file",
            output_path=str(path),
        )
    except NotImplementedError as error:
        raise UserError(
            f"jax2onnx cannot convert this network ({str(error).splitlines()[0][:200]}); --to=stablehlo writes any"
        ) from error


def _simplify(path: pathlib.Path, written: pathlib.Path) -> None:
    """onnxruntime's basic pass: constants are folded, and transposes that cancel each other go."""
    onnx, onnxruntime = _package("onnx"), _package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(written)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load(written)
    used = {node.domain for node in model.graph.node} | {""}
    domains = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in domains.items())
    onnx.save(model, written)


def _joined(parts: Sequence[pathlib.Path], written: pathlib.Path) -> pathlib.Path:
    """One graph, or two of which the first makes the scores that the second takes."""
    onnx, compose = _package("onnx"), _package("onnx.compose")
    first, *rest = map(onnx.load, parts)
    for second in rest:  # Names in both follow the same rules, so those of the second get a prefix.
        second = compose.add_prefix(second, "answer/", rename_inputs=False, rename_outputs=False)
        first = compose.merge_models(first, second, io_map=[("scores", "scores")])
    onnx.save(first, written)
    return written


def _quantize(front: pathlib.Path, written: pathlib.Path, images: Sequence[np.ndarray]) -> None:
    """8-bit weights by channel and 8-bit activations, whose ranges are those on the images."""
    quantization = _package("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._left = iter(images)

        def get_next(self) -> Any:
            image = next(self._left, None)
            return None if image is None else {"image": image}

    logging.getLogger().addFilter(_no_advice)
    try:
        quantization.quantize_static(
            front,
            written,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_endless(front),
        )
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _endless(file: pathlib.Path) -> list[str]:
    """Names of the nodes whose values hold the minus infinity that pads a maximum: no 8-bit range has room for it."""
    onnx = _package("onnx")
    graph, found, endless = onnx.load(file).graph, [], set()
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        filled = constants.get(node.input[2]) if node.op_type == "Pad" and len(node.input) > 2 else None
        if (filled is not None and filled < -1e30) or (node.op_type == "Slice" and node.input[0] in endless):
            found.append(node.name)
            endless.update(node.output)
    return found


def _no_advice(record: logging.LogRecord) -> bool:
    """onnxruntime advises to preprocess every model, this one too, which has been."""
    return "pre-processing" not in record.getMessage()


def _finished(
    network: Network,
    whole: pathlib.Path,
    front: pathlib.Path,
    written: pathlib.Path,
    notes: dict[str, str],
    int8: bool = False,
) -> File:
    """The whole graph with its notes under its name, checked by onnx; and how to ask it."""
    onnx = _package("onnx")
    model = onnx.load(whole)
    onnx.helper.set_model_props(model, notes)
    model.producer_name, model.producer_version = "nightjax", notes["nightjax"]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, written)
    scores = open_file(front)
    moved = network.outputs == "logits" and network.layout == "nchw"
    logits = lambda image: np.moveaxis(scores(image)[0], 1, -1) if moved else scores(image)[0]
    return File(written.name, written.stat().st_size, open_file(written), logits, int8)
