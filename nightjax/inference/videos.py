# SPDX-License-Identifier: Apache-2.0
"""Videos in and out, a frame at a time: video files, or folders of numbered images."""

import dataclasses
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from etils import epath

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.core.files import write_whole
from nightjax.core.progress import Progress
from nightjax.data.labels import histogram
from nightjax.inference import overlay
from nightjax.inference.files import Label, read_any, read_mask
from nightjax.inference.inputs import VIDEO_RESULTS, is_video
from nightjax.inference.pipeline import pipelined

USUAL_RATE = 25.0
"""Frames a second of a video whose file does not say."""

FRAMES_HELD = 4
"""How many frames are in memory at a time."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video to read.

    Attributes:
        frames: gives name and image (uint8 [H, W, 3] RGB) of one frame after the other.
        count: how many there are by the file's header; 0 if it does not say.
        rate: frames a second.
        bad: what is wrong with the frames that were left out so far.
    """

    frames: Callable[[], Iterator[tuple[str, np.ndarray]]]
    count: int
    rate: float
    bad: list[str] = dataclasses.field(default_factory=list)


def open_clip(paths: Sequence[epath.Path], rate: float = 0.0) -> Clip:
    """Opens a video file, or the images of a folder in their order.

    Args:
        paths: one video file, or the frames.
        rate: frames a second; 0 for the file's own, or for frames `USUAL_RATE`.

    Raises:
        UserError: the file is no video that OpenCV reads, or is not on a local disk.
    """
    if not is_video(paths[0]):
        bad: list[str] = []
        return Clip(lambda: _read(paths, bad), len(paths), rate or USUAL_RATE, bad)
    path = paths[0]
    if "://" in str(path):
        raise UserError(f"{path}: videos are read from local disks only, copy it first")
    capture = _capture(path)
    try:
        if not capture.isOpened():
            raise UserError(
                f"{path} cannot be read as a video: it is damaged, or in a format that OpenCV does not know"
            )
        count, own = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    return Clip(lambda: _decode(path), max(count, 0), rate or (own if 0 < own < 1000 else USUAL_RATE))


def write_clip(
    label: Label,
    clip: Clip,
    folder: epath.Path,
    name: str,
    classes: ClassSet,
    finished: Callable[[epath.Path], bool] = lambda mask: False,
) -> tuple[np.ndarray, int]:
    """Segments a video and writes ``<name>_trainids/<frame>.png`` and ``<name>_overlay.mp4``, frame by frame.

    The overlay has the size of the first frame, to the next smaller even number, and appears when it is complete.

    Args:
        label: of the network.
        clip: to read.
        folder: to write to.
        name: of the results, possibly with folders.
        classes: of the network.
        finished: whether the mask of a frame is there already; it is then read and not made again.

    Returns:
        How many pixels have each train id, int64 [256], and how many frames there were.

    Raises:
        UserError: no frame can be read.
    """
    counts, number = np.zeros(256, np.int64), 0
    masks, target = (folder / f"{name}{end}" for end in VIDEO_RESULTS)
    frames = clip.frames()

    def read(_: int) -> _Frame | None:
        following = next(frames, None)
        if following is None:
            return None
        path = masks / f"{following[0]}.png"
        return _Frame(path, following[1], read_mask(path) if finished(path) else None)

    def work(frame: _Frame | None) -> np.ndarray | None:
        if frame is None or frame.mask is not None:
            return frame and frame.mask
        return label(frame.image)

    with tempfile.TemporaryDirectory() as temporary, _Overlay(pathlib.Path(temporary), clip.rate) as video:

        def write(_: int, frame: _Frame | None, labels: np.ndarray | None) -> np.ndarray | None:
            if frame is None or labels is None:
                return None
            if frame.mask is None:
                write_whole(frame.path, overlay.encode_label(labels))
            video.add(overlay.blend(frame.image, labels, palette=classes.colors))
            return histogram(labels)

        with Progress(total=clip.count or None, unit="frame", desc=name) as bar:
            steps = pipelined(itertools.count(), read, work, write, cost=lambda _: 1, limit=FRAMES_HELD)
            for _, written in steps:
                counted = written.result()
                if counted is None:
                    break
                counts, number = counts + counted, number + 1
                bar.update()
            steps.close()
        if not number:
            why = clip.bad[0] if clip.bad else "it is damaged, or in a format that OpenCV does not know"
            raise UserError(f"{name} has no frame that can be read: {why}")
        video.close()
        epath.Path(video.path).copy(target, overwrite=True)
    return counts, number


@dataclasses.dataclass(frozen=True)
class _Frame:
    path: epath.Path
    image: np.ndarray
    mask: np.ndarray | None


class _Overlay:
    """An mp4 file in a folder, of the size of its first image."""

    def __init__(self, folder: pathlib.Path, rate: float):
        self.path, self._rate = folder / "overlay.mp4", rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> "_Overlay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, image: np.ndarray) -> None:
        """Appends uint8 [H, W, 3] RGB."""
        if self._writer is None:
            self._size = (max(image.shape[1] // 2 * 2, 2), max(image.shape[0] // 2 * 2, 2))
            self._writer = _open_writer(self.path, self._rate, self._size)
        image = image if image.shape[1::-1] == self._size else cv2.resize(image, self._size)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.release()


def _open_writer(path: pathlib.Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise UserError(f"OpenCV cannot write mp4 videos of {size[0]}x{size[1]} here: install opencv-python-headless")
    return writer


def _capture(path: epath.Path) -> cv2.VideoCapture:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # What is wrong with a file is said here, in one line.
    return cv2.VideoCapture(str(path))


def _read(paths: Sequence[epath.Path], bad: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        try:
            image = read_any(path)
        except UserError as error:
            bad.append(str(error))
            continue
        yield path.stem, image


def _decode(path: epath.Path) -> Iterator[tuple[str, np.ndarray]]:
    capture = _capture(path)
    try:
        number = 0
        while True:
            there, image = capture.read()
            if not there:
                return
            yield f"{number:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        capture.release()
