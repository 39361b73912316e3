"""Videos in and out, a frame at a time: video files, or folders of numbered images."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from etils import epath
from tqdm import tqdm

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.core.files import write_whole
from nightjax.inference import overlay
from nightjax.inference.files import Predict, read_any
from nightjax.inference.inputs import VIDEO_RESULTS, is_video

USUAL_RATE = 25.0
"""Frames a second of a video whose file does not say."""


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
    predict: Predict, clip: Clip, folder: epath.Path, name: str, classes: ClassSet
) -> tuple[np.ndarray, int]:
    """Segments a video and writes ``<name>_trainids/<frame>.png`` and ``<name>_overlay.mp4``, frame by frame.

    The overlay has the size of the first frame, to the next smaller even number, and appears when it is complete.

    Args:
        predict: of the network.
        clip: to read.
        folder: to write to.
        name: of the results, possibly with folders.
        classes: of the network.

    Returns:
        How many pixels have each train id, int64 [256], and how many frames there were.

    Raises:
        UserError: no frame can be read.
    """
    counts, number, writer = np.zeros(256, np.int64), 0, None
    masks, target = (folder / f"{name}{end}" for end in VIDEO_RESULTS)
    with tempfile.TemporaryDirectory() as temporary:
        draft = pathlib.Path(temporary) / "overlay.mp4"
        try:
            for frame, image in tqdm(clip.frames(), total=clip.count or None, unit="frame", desc=name, disable=None):
                label = predict(image).label
                counts += np.bincount(label.reshape(-1), minlength=256)
                write_whole(masks / f"{frame}.png", overlay.encode_label(label))
                blended = overlay.blend(image, label, palette=classes.colors)
                if writer is None:
                    size = tuple(max(side // 2 * 2, 2) for side in image.shape[1::-1])
                    writer = _open_writer(draft, clip.rate, size)
                blended = blended if blended.shape[1::-1] == size else cv2.resize(blended, size)
                writer.write(cv2.cvtColor(blended, cv2.COLOR_RGB2BGR))
                number += 1
        finally:
            if writer is not None:
                writer.release()
        if not number:
            why = clip.bad[0] if clip.bad else "it is damaged, or in a format that OpenCV does not know"
            raise UserError(f"{name} has no frame that can be read: {why}")
        epath.Path(draft).copy(target, overwrite=True)
    return counts, number


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
