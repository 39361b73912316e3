# SPDX-License-Identifier: Apache-2.0
"""An export folder: written, checked, and only then given its name; and opened again."""

import dataclasses
import datetime
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

import nightjax
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, choose
from nightjax.core.files import read_json, write_whole
from nightjax.shipping import cards, onnx_file, parity, runners, saved_model, stablehlo, tflite, web
from nightjax.shipping.network import Network

TARGETS = ("stablehlo", "onnx", "web", "tflite", "saved_model")

ABOUT = "about.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """How the formats are written.

    Attributes:
        platforms: that StableHLO is written for.
        opset: of ONNX.
        calibration: images for 8-bit ONNX, uint8 [H, W, 3] each; () for none.
        web_runtime: folder of the unpacked onnxruntime-web; ``""`` fetches it.
        limits: what the check asks for.
    """

    platforms: Sequence[str] = ("cpu", "cuda", "tpu")
    opset: int = 20
    calibration: Sequence[np.ndarray] = ()
    web_runtime: str = ""
    limits: parity.Limits = parity.Limits()


def export(
    output: epath.PathLike,
    target: str,
    network: Network,
    classes: ClassSet,
    origin: Mapping[str, Any],
    examples: parity.Examples,
    options: Options = Options(),
) -> dict[str, Any]:
    """Writes a network in one format, checks it, and puts the folder in its place.

    Args:
        output: a folder, new or of an earlier export, which is replaced.
        target: of `TARGETS`.
        network: to write; TFLite takes one image where any number is allowed.
        classes: that it tells apart.
        origin: what else ``about.json`` says, see `cards.about`.
        examples: to check it on.
        options: of the format.

    Returns:
        What ``parity.json`` says.

    Raises:
        UserError: ``output`` holds something else, a package is missing, or the format cannot hold the network.
        parity.ParityFailed: it answers too differently; ``output`` is as it was.
    """
    choose(dict.fromkeys(TARGETS), target, "to")
    check_free(output)
    if target == "tflite":
        network = dataclasses.replace(network, batch=network.batch or 1)
    with tempfile.TemporaryDirectory() as place:
        folder, scratch = pathlib.Path(place) / "export", pathlib.Path(place) / "scratch"
        folder.mkdir()
        scratch.mkdir()
        about = cards.about(target, network, classes, origin)
        files = _write(target, network, folder, scratch, about, options)
        found = parity.check(network, files, examples, options.limits)
        (folder / "run.py").write_text(runners.script(target))
        (folder / "parity.json").write_text(json.dumps(found, indent=1) + "\n")
        (folder / "README.md").write_text(cards.readme(about, found, _listed(folder)))
        _place(folder, epath.Path(output), json.dumps(about, indent=1) + "\n")
    return found


def check_free(output: epath.PathLike) -> None:
    """Refuses a folder that holds something other than an export."""
    folder = epath.Path(output)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / ABOUT).exists())):
        raise UserError(f"--output={output} holds something that is no export; choose a new folder")


def _write(
    target: str,
    network: Network,
    folder: pathlib.Path,
    scratch: pathlib.Path,
    about: dict[str, Any],
    options: Options,
) -> list[parity.File]:
    """The files of a format, and what ``about`` says of that format."""
    if target in ("onnx", "web"):
        about["opset"] = options.opset
        notes = {"nightjax": nightjax.__version__, "classes": json.dumps(about["classes"])}
        files = onnx_file.write(
            network, folder, scratch, opset=options.opset, notes=notes, calibration=options.calibration
        )
        about["versions"] |= onnx_file.versions()
        if target == "web":
            web.write(folder, scratch, options.web_runtime)
            about["versions"][web.PACKAGE] = web.VERSION
        return files
    if target == "tflite":
        about["versions"]["tensorflow"] = saved_model.tensorflow().__version__
        return tflite.write(network, folder, scratch)
    if target == "saved_model":
        files = saved_model.write(network, folder)
        about["versions"]["tensorflow"] = saved_model.tensorflow().__version__
        return files
    about["platforms"] = list(options.platforms)
    written = datetime.date.fromisoformat(about["written"])
    about["good_until"] = cards.months_later(written, stablehlo.MONTHS).isoformat()
    return stablehlo.write(network, folder, platforms=options.platforms)


_WHAT = {
    "model.onnx": "the network, weights inside",
    "model_int8.onnx": "the same with 8-bit weights and activations",
    "model.tflite": "the network, weights inside",
    "model_int8.tflite": "the same with 8-bit weights",
    "index.html": "the page",
    "ort": "onnxruntime-web by Microsoft (MIT license)",
    "weights.npz": "the weights, by name, the first argument of every program",
    "saved_model": "a SavedModel with the signature `image` to `label` and `confidence`",
    "run.py": "segments a photo",
    "about.json": "sizes, classes, colors, versions, origin and license, for programs",
    "parity.json": "how it was checked, with what result",
    "README.md": "this page",
}


def _listed(folder: pathlib.Path) -> list[tuple[str, str]]:
    names = sorted([path.name for path in folder.iterdir()] + [ABOUT, "README.md"])
    program = lambda name: f"the program for {name.removeprefix('program_').removesuffix('.bin')}"
    return [(name, _WHAT.get(name) or program(name)) for name in names]


def _place(folder: pathlib.Path, output: epath.Path, about: str) -> None:
    """Copies a finished folder and `ABOUT` to their place; an earlier export there stays until all of it is written."""
    remote = "://" in str(output)  # Stores have no folders to rename.
    draft = output if remote else output.parent / f".{output.name}.partial"
    if draft.exists():
        draft.rmtree()
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                write_whole(draft / path.relative_to(folder).as_posix(), path.read_bytes())
        write_whole(draft / ABOUT, about)
    except OSError:
        draft.rmtree(missing_ok=True)
        raise
    if not remote:
        if output.exists():
            output.rmtree()
        draft.rename(output)


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export folder, ready to use. Made by `load`.

    Attributes:
        program: images in the program's own layout to its outputs.
        about: what ``about.json`` says.
    """

    program: Callable[[np.ndarray], Sequence[np.ndarray]]
    about: dict[str, Any]

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Segments images: label uint8 [B, H, W] and confidence float32 [B, H, W], or logits.

        Raises:
            UserError: the images have another size, type or number than the program takes.
        """
        shape, dtype = self.shape(len(image)), np.uint8 if self.about["layout"] == "nhwc" else np.float32
        if image.dtype != dtype or image.shape != shape:
            wanted = [self.about["batch"] or "any", *shape[1:]]
            raise UserError(
                f"the exported network takes {np.dtype(dtype)} {wanted}, not {image.dtype} {list(image.shape)}; resize "
                "the images or export with --size"
            )
        return tuple(self.program(image))

    def shape(self, batch: int = 1) -> tuple[int, ...]:
        """Of the images of a call, of so many images if the program takes any number."""
        height, width = self.about["size"]
        batch = self.about["batch"] or batch
        return (batch, height, width, 3) if self.about["layout"] == "nhwc" else (batch, 3, height, width)


def load(folder: str | os.PathLike, file: str = "") -> Exported:
    """Opens what `export` wrote.

    Args:
        folder: of the export.
        file: of several programs in it, such as ``model_int8.onnx``; by default the one without 8-bit weights.

    Raises:
        UserError: the folder holds none, a damaged one, or one that needs a package that is not installed.
    """
    path = pathlib.Path(folder)
    if not (path / ABOUT).exists():
        raise UserError(f"{folder} holds no exported network; write one with nightjax export")
    about = read_json(path / ABOUT, dict, "export again")
    if missing := {"target", "size", "batch", "layout"} - about.keys():
        raise UserError(f"{path / ABOUT} is damaged (it has no {sorted(missing)[0]!r}); export again")
    target = choose({name: name for name in TARGETS}, about["target"], f"{path / ABOUT}: target")
    if target in ("onnx", "web"):
        return Exported(onnx_file.open_file(path / (file or onnx_file.FLOAT)), about)
    if target == "tflite":
        return Exported(tflite.open_file(path / (file or tflite.FLOAT)), about)
    if target == "saved_model":
        return Exported(saved_model.open_folder(path), about)
    return Exported(stablehlo.open_folder(path), about)
