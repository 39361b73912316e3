# SPDX-License-Identifier: Apache-2.0
"""Whether a written program answers as nightjax does: asked on images, measured, written down.

The reference is the same network in JAX on this machine. Images have the program's size, so that nothing but the
program is compared.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from nightjax.core.types import IGNORE, Size
from nightjax.metrics.confusion import mean_iou
from nightjax.shipping.network import Network
from nightjax.shipping.timing import measure

Program = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Images in the program's own layout to its outputs, by `Network.names`."""

AGREEMENT, INT8_AGREEMENT = 0.999, 0.9
"""The smallest share of pixels with nightjax's label, of float programs and of those with 8-bit weights."""

MIOU_LOSS = 0.5
"""Points of mIoU that a program may lose, where there are labels."""


class ParityFailed(Exception):
    """A written program answers too differently; the message says by how much."""


@dataclasses.dataclass(frozen=True)
class File:
    """A program to check.

    Attributes:
        name: of its file in the folder.
        size: in bytes, with its weights.
        program: as it is shipped.
        logits: the same network's logits [B, h, w, K], for images in the program's own layout.
        int8: whether weights have 8 bits.
    """

    name: str
    size: int
    program: Program
    logits: Callable[[np.ndarray], np.ndarray]
    int8: bool = False


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images to check with.

    Attributes:
        of: what they are, for people.
        images: each uint8 [H, W, 3] of the program's size, read when it is asked for.
        truths: the train ids of each, uint8 [h, w] of any size; () without labels.
        classes: number of classes.
    """

    of: str
    images: Sequence[np.ndarray]
    truths: Sequence[np.ndarray]
    classes: int


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program must reach; None for the defaults of its kind."""

    agreement: float | None = None
    miou_loss: float = MIOU_LOSS


def drawn_examples(size: Size, classes: int, count: int = 4) -> Examples:
    """Smooth seeded color fields with noise: images for a check without a folder."""
    rng, images = np.random.default_rng(0), []
    for _ in range(count):
        coarse = rng.integers(0, 256, (rng.integers(3, 9), rng.integers(3, 9), 3)).astype(np.uint8)
        smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
        images.append(np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8))
    return Examples(f"{count} drawn color fields", images, (), classes)


def check(network: Network, files: Sequence[File], examples: Examples, limits: Limits) -> dict[str, Any]:
    """Compares programs with nightjax.

    Args:
        network: that they were written from.
        files: the programs.
        examples: to ask them on.
        limits: what they must reach.

    Returns:
        What ``parity.json`` says.

    Raises:
        ParityFailed: a program differs too much.
    """
    reference = network.reference()
    sums = {file.name: _Sums(examples.classes) for file in files}
    before = _Sums(examples.classes)
    for index, image in enumerate(examples.images):
        label, confidence, logits = reference(image[None])
        truth = examples.truths[index] if examples.truths else None
        before.add_truth(label[0], truth)
        for file in files:
            own = in_layout(network, image)
            answer = dict(zip(network.names, file.program(own), strict=True))
            sums[file.name].add(network, answer, file.logits(own), label[0], confidence[0], logits[0])
            sums[file.name].add_truth(sums[file.name].last_label, truth)
    image = examples.images[0]
    found = {
        "images": len(examples.images),
        "of": examples.of,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "nightjax": {"ms": measure(lambda: reference(image[None])).median} | before.scores(),
        "files": {},
    }
    for file in files:
        own = in_layout(network, image)
        ms = measure(lambda file=file, own=own: file.program(own)).median
        found["files"][file.name] = sums[file.name].facts() | sums[file.name].scores() | {"bytes": file.size, "ms": ms}
        _refuse(file, found["files"][file.name], found["nightjax"], limits)
    return found


def in_layout(network: Network, image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as the program takes it: as many times as its batch wants, in its layout."""
    images = np.repeat(image[None], network.batch or 1, axis=0)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) if network.layout == "nchw" else images


class _Sums:
    """What a program's answers add up to."""

    def __init__(self, classes: int):
        self._classes, self._counts = classes, np.zeros((classes, classes + 1), np.int64)  # The last is no class.
        self._same = self._pixels = 0
        self._logit = self._confidence = 0.0
        self.last_label = np.zeros((0, 0), np.uint8)

    def add(
        self,
        network: Network,
        answer: dict[str, np.ndarray],
        twin: np.ndarray,
        label: np.ndarray,
        confidence: np.ndarray,
        logits: np.ndarray,
    ) -> None:
        """One image: what the program and its logits said, and what nightjax says."""
        self._logit = max(self._logit, float(np.abs(twin[0] - logits).max()))
        if network.outputs == "label":
            self.last_label, expected = answer["label"][0], label
            self._confidence = max(self._confidence, float(np.abs(answer["confidence"][0] - confidence).max()))
        else:
            given = answer["logits"][0]
            self.last_label = given.argmax(0 if network.layout == "nchw" else -1).astype(np.uint8)
            expected = logits.argmax(-1)
        self._same += int((self.last_label == expected).sum())
        self._pixels += expected.size

    def add_truth(self, label: np.ndarray, truth: np.ndarray | None) -> None:
        """A prediction of any size beside its true labels."""
        if truth is None:
            return
        label = cv2.resize(label, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        valid = (truth != IGNORE) & (truth < self._classes)
        columns = np.minimum(label[valid], self._classes)
        pairs = truth[valid].astype(np.int64) * (self._classes + 1) + columns
        self._counts += np.bincount(pairs, minlength=self._counts.size).reshape(self._counts.shape)

    def facts(self) -> dict[str, Any]:
        """How far the program is from nightjax."""
        return {
            "label_agreement": self._same / max(self._pixels, 1),
            "largest_logit_difference": self._logit,
            "largest_confidence_difference": self._confidence,
        }

    def scores(self) -> dict[str, float]:
        """mIoU in percent, if there was truth."""
        return {"miou": round(100 * mean_iou(self._counts), 2)} if self._counts.any() else {}


def _refuse(file: File, found: dict[str, Any], nightjax: dict[str, Any], limits: Limits) -> None:
    least = limits.agreement if limits.agreement is not None else INT8_AGREEMENT if file.int8 else AGREEMENT
    if not found["label_agreement"] >= least:
        raise ParityFailed(
            f"{file.name} agrees with nightjax on {found['label_agreement']:.2%} of the pixels, and {least:.2%} are "
            f"asked for (largest difference of a logit {found['largest_logit_difference']:.3g})"
        )
    if "miou" in found and not found["miou"] >= nightjax["miou"] - limits.miou_loss:
        raise ParityFailed(
            f"{file.name} has {found['miou']:.2f} mIoU and nightjax {nightjax['miou']:.2f}; at most "
            f"{limits.miou_loss:g} points may be lost"
        )


class Resized(Sequence[np.ndarray]):
    """Images that are read and resized when they are asked for.

    Args:
        read: one function an image, which returns uint8 [h, w, 3].
        size: (H, W).
    """

    def __init__(self, read: Iterable[Callable[[], np.ndarray]], size: Size):
        self._read, self._size = list(read), size

    def __len__(self) -> int:
        return len(self._read)

    def __getitem__(self, index: Any) -> Any:
        return cv2.resize(self._read[index](), self._size[::-1], interpolation=cv2.INTER_LINEAR)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))
