# SPDX-License-Identifier: Apache-2.0
"""Prediction of many files: what is bad never stops the rest, and what is done is not done again."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, memory_shortage
from nightjax.core.files import write_whole
from nightjax.core.progress import Progress
from nightjax.core.types import IGNORE
from nightjax.data.labels import histogram
from nightjax.inference import videos
from nightjax.inference.files import (
    Label,
    is_newer,
    read_any,
    read_mask,
    write_classes,
    write_results,
)
from nightjax.inference.inputs import RESULTS, VIDEO_RESULTS, Inputs
from nightjax.inference.pipeline import pipelined
from nightjax.inference.summaries import SUMMARY, file_of, is_same, joined, read_summary

PIXELS_HELD = 2**23
"""Up to how many pixels images are read ahead and written behind; one with more is held alone."""

THREADS = min(os.cpu_count() or 1, 8)
"""How many threads read images, and how many write results."""


class Predictions:
    """An output folder.

    Its ``summary.json`` says which network made the predictions and how, and the classes' shares of every image. If it
    was another network or another way, the results are deleted and made again.

    Args:
        folder: of the results.
        made_by: facts about the network (see `loaded.Run.facts`) and about the way in which it predicts, as JSON has
            them.
        classes: of the network.
        part: number of this process, from 0, and how many share the work. Each keeps a summary of its own until the
            last has joined them.

    Attributes:
        failed: name of an image or video to why it was not, or not wholly, segmented.
        before: how many were finished before.
        is_whole: whether all parts are done, after the call.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        made_by: Mapping[str, Any],
        classes: ClassSet,
        part: tuple[int, int] = (0, 1),
    ):
        self.folder, self._classes, self._part = epath.Path(folder), classes, part
        self._made_by = json.loads(json.dumps(made_by))
        # Of this part, or of all images when an earlier prediction was whole.
        earlier = read_summary(self.folder, file_of(part)) or read_summary(self.folder)
        same = is_same(earlier, {"made_by": self._made_by})
        self._earlier = earlier if same else {}
        if earlier and not same:
            print(f"{folder} holds predictions of another network or with other flags; they are replaced")
        self.failed: dict[str, str] = {}
        self.before, self.is_whole = 0, False
        self._done: dict[str, dict[str, Any]] = {"images": {}, "videos": {}}

    def __call__(
        self, label: Label, inputs: Inputs, rate: float = 0.0, smoother: Callable[[], Label] | None = None
    ) -> None:
        """Predicts what is not finished, and writes the summary and the legend.

        Args:
            label: of the network.
            inputs: to predict; of several parts, those of all.
            rate: frames a second of videos; 0 for their own.
            smoother: makes what labels the frames of one video in their order, if not ``label``. As each frame then
                depends on those before, a video that was stopped begins again.
        """
        everything, inputs = inputs, inputs.part(*self._part)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._earlier:
            self._delete(inputs)
        self._write(inputs)  # Says who makes the predictions before there is one.
        if not self._earlier and self._part[1] > 1:  # The summary is of another network.
            (self.folder / SUMMARY).unlink(missing_ok=True)
        write_classes(self.folder, self._classes)
        try:
            self._images(label, inputs)
            for name, paths in inputs.videos.items():
                self._guarded(name, paths[-1], lambda n=name, p=paths: self._video(n, p, rate, label, smoother))
        finally:
            self._write(inputs)
        self.is_whole = self._part[1] == 1 or self._join(everything)

    @property
    def count(self) -> int:
        """How many images and videos have their results."""
        return sum(map(len, self._done.values()))

    def _guarded(self, name: str, path: epath.Path, work: Callable[[], None]) -> None:
        """Does one image or video; notes what is wrong with it, but stops for what is wrong with the disk."""
        try:
            work()
        except UserError as error:
            self.failed[name] = str(error)
        except (MemoryError, RuntimeError) as error:
            shortage = memory_shortage(error)
            if shortage is None:
                raise
            self.failed[name] = (
                f"{path}: {shortage}; show it to the network smaller with --size=height,width, give fewer or smaller "
                "--scales, or leave out --flip"
            )

    def _images(self, label: Label, inputs: Inputs) -> None:
        images, done = inputs.images, self._done["images"]

        def write(name: str, image: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
            write_results(image, labels, self.folder, name, self._classes)
            return self._facts(images[name], labels)

        with Progress(total=len(images), unit="image") as bar:
            finished = {name for name, path in images.items() if self._is_finished(name, path, RESULTS)}
            for name in [name for name in images if name in finished]:
                self.before += 1
                earlier = self._earlier["images"].get(name)  # Not there if the earlier prediction was killed.
                done[name] = earlier or self._facts(images[name], read_mask(self.folder / f"{name}{RESULTS[0]}"))
                bar.update()
            for name, written in pipelined(
                [name for name in images if name not in finished],
                lambda name: read_any(images[name]),
                label,
                write,
                cost=lambda name: math.prod(inputs.sizes.get(name, (1,))),
                limit=PIXELS_HELD,
                threads=THREADS,
            ):
                self._guarded(name, images[name], lambda n=name, w=written: done.update({n: w.result()}))
                bar.update()

    def _video(
        self,
        name: str,
        paths: Sequence[epath.Path],
        rate: float,
        label: Label,
        smoother: Callable[[], Label] | None,
    ) -> None:
        earlier = self._earlier.get("videos", {}).get(name)
        whole = earlier and name not in self._earlier["failed"]
        if whole and self._is_finished(name, paths[-1], VIDEO_RESULTS):
            self.before += 1
            self._done["videos"][name] = earlier
            return
        clip = videos.open_clip(paths, rate)
        newest = max(path.stat().mtime for path in paths)
        done = lambda mask: smoother is None and bool(self._earlier) and is_newer([mask], newest)
        counts, number = videos.write_clip(
            smoother() if smoother else label, clip, self.folder, name, self._classes, done
        )
        facts = {"file": str(paths[0]), "frames": number, "rate": clip.rate, "shares": self._shares(counts)}
        self._done["videos"][name] = facts
        if clip.bad:
            raise UserError(f"{name}: {len(clip.bad)} of {clip.count} frames left out, the first: {clip.bad[0]}")
        if number < 0.99 * clip.count:
            raise UserError(f"{paths[0]} ends after {number} of {clip.count} frames: copy or download it again")

    def _is_finished(self, name: str, path: epath.Path, ends: Sequence[str]) -> bool:
        """Whether all results of a file are there, by this network, and none is older than the file."""
        return bool(self._earlier) and is_newer([self.folder / f"{name}{end}" for end in ends], path.stat().mtime)

    def _delete(self, inputs: Inputs) -> None:
        """Deletes what would be made again, or it would be taken for finished after an interruption."""
        for path in [self.folder / f"{name}{end}" for name in inputs.images for end in RESULTS]:
            path.unlink(missing_ok=True)
        for name in inputs.videos:
            masks, video = (self.folder / f"{name}{end}" for end in VIDEO_RESULTS)
            for path in [video, *masks.glob("*.png")]:
                path.unlink(missing_ok=True)

    def _facts(self, path: epath.Path, label: np.ndarray) -> dict[str, Any]:
        return {
            "file": str(path),
            "height": label.shape[0],
            "width": label.shape[1],
            "shares": self._shares(histogram(label)),
        }

    def _shares(self, counts: np.ndarray) -> dict[str, float]:
        """Class to its share of the pixels, of the classes that occur."""
        names = dict(enumerate(self._classes.names)) | {IGNORE: "no class"}
        return {names[k]: round(float(counts[k] / counts.sum()), 6) for k in np.flatnonzero(counts).tolist()}

    def _write(self, inputs: Inputs) -> None:
        known = dict(self._done)
        if self._part[1] == 1:  # Results stay known whose inputs are gone. A part lists what it has seen itself.
            known = {kind: self._earlier.get(kind, {}) | done for kind, done in known.items()}
        content = {"made_by": self._made_by, **known}
        content |= {"failed": self.failed, "passed_over": dict(inputs.passed_over)}
        self._write_summary(file_of(self._part), content)

    def _write_summary(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.folder / name, (json.dumps(content, indent=1) + "\n").encode())

    def _join(self, inputs: Inputs) -> bool:
        """Makes one summary of those of all parts, if they are done. Returns whether they are."""
        parts = self._part[1]
        whole = joined(self.folder, parts, self._made_by, (*inputs.images, *inputs.videos))
        files = [self.folder / file_of((number, parts)) for number in range(parts)]
        if whole is not None:
            self._write_summary(SUMMARY, whole)
            for file in files:
                file.unlink(missing_ok=True)
        return not any(file.exists() for file in files)
