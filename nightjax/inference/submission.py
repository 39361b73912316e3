# SPDX-License-Identifier: Apache-2.0
"""Packages for the benchmark servers: which folders, names, ids and sizes they want, and writing them.

Train ids become label ids nowhere else but here, and only for Cityscapes. Sources: the rules of the Dark Zurich
competition (CodaLab 23553), ACDC's and Cityscapes' evaluation pages, and users' failed uploads (DANNet issues 11 and
17).
"""

import dataclasses
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Literal

import cv2
import jax
import numpy as np
from etils import epath

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.progress import Progress
from nightjax.core.types import IGNORE
from nightjax.data import sources, streams
from nightjax.metrics import protocol
from nightjax.metrics.protocol import EvalSet

Content = Literal["train_ids", "train_ids_invalid", "label_ids", "confidence"]


@dataclasses.dataclass(frozen=True)
class Package:
    """What one server accepts.

    Attributes:
        folders: name of each top-level folder to its content; the name "" means files anywhere in the package.
        size: (height, width) of every file.
        frame: regular expression of the part of a file's name that says which frame it is.
        file_name: of a frame, with ``{frame}``.
        counts: numbers of frames in the official test sets.
    """

    folders: dict[str, Content]
    size: tuple[int, int]
    frame: str
    file_name: str
    counts: tuple[int, ...]

    def frame_of(self, name: str) -> str | None:
        """The frame that a file or image name belongs to, or None."""
        found = re.search(self.frame, name)
        return found[0] if found else None


_GOPRO = r"(?:GOPR|GP\d\d)\d{4}_frame_\d{6}"

PACKAGES = {
    "dark_zurich": Package(
        {"labelTrainIds": "train_ids", "labelTrainIds_invalid": "train_ids_invalid", "confidence": "confidence"},
        (1080, 1920),
        _GOPRO,
        "{frame}_rgb_anon.png",
        (151,),
    ),
    "acdc": Package({"labelTrainIds": "train_ids"}, (1080, 1920), _GOPRO, "{frame}_rgb_anon.png", (500, 2000)),
    "cityscapes": Package({"": "label_ids"}, (1024, 2048), r"[a-z-]+_\d{6}_\d{6}", "{frame}_labelIds.png", (1525,)),
}
"""Benchmark to package. ACDC takes one condition (500 frames) or all four."""


def predict_source(
    predict_fn: jax.tree_util.Partial,
    source: sources.Source,
    rule: EvalSet,
    size: tuple[int, int],
    weights: np.ndarray | None = None,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Predicts every record of a source, one at a time.

    Args:
        predict_fn: uint8 [B, H, W, 3] to logits [B, h, w, K]; its arguments are the network's variables.
        source: records with an image.
        rule: the protocol of prediction.
        size: (height, width) of the results.
        weights: factors of the classes' logits [K].

    Yields:
        Image id, train ids uint8 [H, W] and confidence float32 [H, W].
    """

    @jax.jit
    def step(predict_fn: jax.tree_util.Partial, image: jax.Array) -> tuple[jax.Array, ...]:
        return protocol.predict(predict_fn, image, rule, size, weights)

    batches = streams.make_eval_batches(source, 1, fields=("image",))
    for batch in Progress(batches, total=len(source), unit="image"):
        (name,) = streams.record_ids(source, batch["index"])
        label, confidence = jax.device_get(step(predict_fn, batch["image"]))
        yield name, label[0], confidence[0]


def write_package(
    predictions: Iterable[tuple[str, np.ndarray, np.ndarray]],
    folder: str | os.PathLike,
    benchmark: str,
    *,
    invalid_below: float = 0.5,
) -> epath.Path:
    """Writes a complete package and, when the last prediction is there, its zip.

    Args:
        predictions: image id, train ids uint8 [H, W] at the package's size, and their probability float [H, W] in 0..1.
        folder: must not exist or be empty.
        benchmark: key of `PACKAGES`.
        invalid_below: Dark Zurich's second label map declines (255) where the probability is below this.

    Returns:
        ``<folder>.zip``.

    Raises:
        UserError: the folder is not empty, or a prediction has a wrong size, a wrong value, an unknown or a second
            name.
    """
    package, root = PACKAGES[benchmark], epath.Path(folder)
    if root.exists() and any(root.iterdir()):
        raise UserError(f"{root} is not empty: name another --output, or delete it")
    written: set[str] = set()
    for name, label, confidence in predictions:
        frame = package.frame_of(name)
        if frame is None or frame in written:
            why = "is predicted twice" if frame else f"is no frame of {benchmark}"
            raise UserError(f"{name!r} {why}: submit the benchmark's own test split")
        if label.shape != package.size or label.max() >= len(CITYSCAPES):
            got = f"{list(label.shape)} with values up to {label.max()}"
            wanted = f"{list(package.size)} and train ids of Cityscapes"
            raise UserError(f"{name}: the label is {got}; {benchmark} wants {wanted}")
        written.add(frame)
        for part, content in package.folders.items():
            (root / part).mkdir(parents=True, exist_ok=True)
            image = _content(content, label, confidence, invalid_below)
            (root / part / package.file_name.format(frame=frame)).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    if not written:
        raise UserError(f"nothing to submit to {benchmark}: the split is empty")
    return _zip(root, package)


def _content(content: Content, label: np.ndarray, confidence: np.ndarray, invalid_below: float) -> np.ndarray:
    if content == "train_ids":
        return label
    if content == "train_ids_invalid":
        return np.where(confidence < invalid_below, IGNORE, label).astype(np.uint8)
    if content == "label_ids":
        return CITYSCAPES.to_ids[label]
    return np.round(np.clip(confidence, 0, 1).astype(np.float64) * 65535).astype(np.uint16)


def _zip(root: epath.Path, package: Package) -> epath.Path:
    """PNGs do not shrink, so they are stored; the zip appears under its name only when complete."""
    target = root.parent / f"{root.name}.zip"
    partial = root.parent / f".{root.name}.zip.partial"
    with partial.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for part in package.folders:
            for path in sorted((root / part).iterdir(), key=str):
                archive.writestr(f"{part}/{path.name}".removeprefix("/"), path.read_bytes())
    return partial.replace(target)
