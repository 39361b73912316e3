# SPDX-License-Identifier: Apache-2.0
"""What a user wants predicted: images and videos by the name of their results, and what was passed over, with why."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import PIL.Image
from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import SPECIAL, below, is_special
from nightjax.data import walking
from nightjax.data.walking import IMAGE_SUFFIXES
from nightjax.inference.summaries import SUMMARY, written_names

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".m4v", ".mkv", ".webm")
"""What is taken for a video, in any case."""

RESULTS = ("_trainids.png", "_color.png", "_overlay.jpg")
"""Ends of the names of an image's results, in the order in which they are written."""

VIDEO_RESULTS = ("_trainids", "_overlay.mp4")
"""Of a video's: a folder of masks, one a frame, and the overlay."""

CLASSES, LEGEND = "classes.json", "legend.png"
"""What an output folder holds beside the results and their summary."""

OWN = "results of an earlier prediction"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Files to predict.

    Attributes:
        images: name of the results, without suffix and relative to the input folder, to file.
        videos: the same of videos; several files are the frames of one.
        passed_over: name of every other file below the input folders to why it is left out.
    """

    images: Mapping[str, epath.Path]
    videos: Mapping[str, Sequence[epath.Path]]
    passed_over: Mapping[str, str]

    @functools.cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Name of every image to its (width, height) by the file's header; files that are no image are left out."""
        sizes = {}
        for name, path in self.images.items():
            try:
                with path.open("rb") as file, PIL.Image.open(file) as image:
                    sizes[name] = image.size
            except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
                continue
        return sizes

    def part(self, number: int, of: int) -> "Inputs":
        """Every so many of the images and videos, from a number on: what one of several processes does."""
        mine = set([*self.images, *self.videos][number::of])
        pick = lambda found: {name: item for name, item in found.items() if name in mine}
        return Inputs(pick(self.images), pick(self.videos), self.passed_over)

    def summary(self) -> str:
        """How many files were passed over, by reason."""
        counts = collections.Counter(self.passed_over.values())
        words = {reason: f"{reason} files" if reason.startswith(".") else reason for reason in counts}
        return "passed over: " + ", ".join(f"{words[reason]} ({number})" for reason, number in counts.most_common())


def find_inputs(
    inputs: Sequence[str | epath.PathLike],
    output: epath.PathLike,
    *,
    frames: bool = False,
    written: Iterable[str] | None = None,
) -> Inputs:
    """Lists what to predict.

    Args:
        inputs: files and folders. Folders are searched with all their sub-folders. A file named explicitly is kept
            whatever it is called.
        output: folder of the results. Results that lie in an input folder are passed over.
        frames: whether the images of a folder are the frames of a video, in the order of the numbers in their names.
        written: names of earlier results, whose inputs may be gone; by default those that its summary has.

    Raises:
        UserError: an input does not exist, nothing was found, two files would be written under one name, or files
            of the user's would be overwritten.
    """
    found: dict[str, epath.Path] = {}
    passed_over: dict[str, str] = {}
    for given in map(epath.Path, inputs):
        if given.is_dir():
            files, passed = _listing(given)
            passed_over |= passed
        elif is_special(given):
            raise UserError(f"input {given} is {SPECIAL}, no file: copy its content into a file")
        elif given.exists():
            files = {given.name: given}
        else:
            raise UserError(f"input {given} does not exist: give image or video files, or a folder of them")
        for inside, path in files.items():
            name = str(pathlib.PurePosixPath(inside).with_suffix(""))
            if frames and not is_video(path):  # A video is called like the folder of its frames.
                name = f"{given.resolve().name if given.is_dir() else given.resolve().parent.name}/{name}"
            if found.setdefault(name, path) != path:
                raise UserError(
                    f"{found[name]} and {path} would both be written as {name}_*.png: rename one of them, or predict "
                    "them into different --output folders"
                )
    root = os.path.realpath(output)
    about = [os.path.join(root, name) for name in (SUMMARY, CLASSES, LEGEND)]
    there = [path for path in about if os.path.exists(path)]
    written = written_names(output) if written is None else written  # Another process may just have begun there.
    if written is None and there:
        raise UserError(f"{there[0]} is not of an earlier prediction and would be overwritten: name another --output")
    own = {
        os.path.join(root, f"{name}{end}") for name in {*found, *(written or ())} for end in (*RESULTS, *VIDEO_RESULTS)
    }
    own |= set(about)
    for name, path in list(found.items()):
        real = os.path.realpath(path)
        if real in own or os.path.dirname(real) in own:
            passed_over[os.fspath(found.pop(name))] = OWN
    if not found:
        where = ", ".join(map(str, inputs)) or "an empty list"
        raise UserError(
            f"no image found in {where}: expected files ending in {' '.join(IMAGE_SUFFIXES)}, or videos in "
            f"{' '.join(VIDEO_SUFFIXES)}"
        )
    videos = {name: [path] for name, path in found.items() if is_video(path)}
    images = {name: path for name, path in found.items() if name not in videos}
    if frames:
        for name in sorted(images, key=_by_number):
            videos.setdefault(name.rpartition("/")[0], []).append(images[name])
        images = {}
    return Inputs(images, videos, passed_over)


def is_video(path: epath.Path) -> bool:
    """Whether a file is called like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _listing(folder: epath.Path) -> tuple[dict[str, epath.Path], dict[str, str]]:
    """Images and videos below a folder by their relative names, and the other files' names to why they are passed
    over."""
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    if "://" in str(folder):
        files = {str(path).removeprefix(f"{folder}/"): path for path in below(folder)}
        return {name: path for name, path in files.items() if path.suffix.lower() in suffixes}, {}
    listing = walking.walk(folder, suffixes)
    return {name: epath.Path(path) for name, path in listing.files.items()}, listing.passed


def _by_number(name: str) -> tuple[str, int, str]:
    """Frame 10 comes after frame 9, however the numbers are written."""
    folder, _, stem = name.rpartition("/")
    digits = "".join(c if c.isdigit() else " " for c in stem).split()
    return folder, int(digits[-1]) if digits else -1, stem
