"""Prediction of many files: what is bad never stops the rest, and what is done is not done again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, memory_shortage
from nightjax.core.files import read_json, write_whole
from nightjax.core.types import IGNORE
from nightjax.inference import videos
from nightjax.inference.files import Predict, is_finished, read_label, write_classes, write_prediction
from nightjax.inference.inputs import SUMMARY, VIDEO_RESULTS, Inputs


def read_summary(folder: epath.PathLike) -> dict[str, Any]:
    """The summary of an output folder; empty if there is none, or none that can be read."""
    try:
        content = read_json(epath.Path(folder) / SUMMARY, dict, "")
    except UserError:
        return {}
    made = {"images": dict, "videos": dict, "failed": dict}
    return content if all(isinstance(content.get(key), kind) for key, kind in made.items()) else {}


def written_names(folder: epath.PathLike) -> list[str] | None:
    """Names of all results in an output folder; None if nothing was predicted into it."""
    earlier = read_summary(folder)
    return [*earlier.get("images", {}), *earlier.get("videos", {})] if "made_by" in earlier else None


class Predictions:
    """An output folder.

    Its ``summary.json`` says which network made the predictions and how, and the classes' shares of every image. If it
    was another network or another way, the results are made again.

    Args:
        folder: of the results.
        made_by: facts about the network (see `loaded.Run.facts`) and about the way in which it predicts, as JSON has
            them.
        classes: of the network.

    Attributes:
        failed: name of an image or video to why it was not, or not wholly, segmented.
        before: how many were finished before.
    """

    def __init__(self, folder: epath.PathLike, made_by: Mapping[str, Any], classes: ClassSet):
        self.folder, self._classes = epath.Path(folder), classes
        self._made_by = json.loads(json.dumps(made_by))
        earlier = read_summary(self.folder)
        same = {**earlier.get("made_by", {}), "run": None} == {**self._made_by, "run": None}  # A run may be moved.
        self._earlier = earlier if same else {}
        if earlier and not same:
            print(f"{folder} holds predictions of another network or with other flags; they are made again")
        self.failed: dict[str, str] = {}
        self.before = 0
        self._done: dict[str, dict[str, Any]] = {"images": {}, "videos": {}}

    def __call__(self, predict: Predict, inputs: Inputs, rate: float = 0.0) -> None:
        """Predicts what is not finished, and writes the summary and the legend.

        Args:
            predict: of the network.
            inputs: to predict.
            rate: frames a second of videos; 0 for their own.
        """
        self._write(inputs)  # Says who makes the predictions before there is one.
        write_classes(self.folder, self._classes)
        try:
            for name, path in tqdm(inputs.images.items(), unit="image", disable=None):
                self._guarded(name, path, self._image, predict)
            for name, paths in inputs.videos.items():
                self._guarded(name, paths[-1], self._video, predict, paths, rate)
        finally:
            self._write(inputs)

    @property
    def count(self) -> int:
        """How many images and videos have their results."""
        return sum(map(len, self._done.values()))

    def _guarded(self, name: str, path: epath.Path, work: Any, *arguments: Any) -> None:
        """Does one image or video; notes what is wrong with it, but stops for what is wrong with the disk."""
        try:
            work(name, path, *arguments)
        except UserError as error:
            self.failed[name] = str(error)
        except (MemoryError, RuntimeError) as error:
            shortage = memory_shortage(error)
            if shortage is None:
                raise
            self.failed[name] = (
                f"{path}: {shortage}; show it to the network smaller with --size=height,width, give fewer or smaller "
                "--scales, or leave --flip away"
            )

    def _image(self, name: str, path: epath.Path, predict: Predict) -> None:
        if self._earlier and is_finished(path, self.folder, name):
            self.before += 1
            earlier = self._earlier["images"].get(name)  # Not there if the earlier prediction was killed.
            self._done["images"][name] = earlier or self._facts(path, read_label(self.folder, name))
            return
        label = write_prediction(predict, path, self.folder, name, self._classes)
        self._done["images"][name] = self._facts(path, label)

    def _video(self, name: str, last: epath.Path, predict: Predict, paths: Sequence[epath.Path], rate: float) -> None:
        earlier = self._earlier.get("videos", {}).get(name)
        if earlier and name not in self._earlier["failed"] and is_finished(last, self.folder, name, VIDEO_RESULTS):
            self.before += 1
            self._done["videos"][name] = earlier
            return
        clip = videos.open_clip(paths, rate)
        counts, number = videos.write_clip(predict, clip, self.folder, name, self._classes)
        facts = {"file": str(paths[0]), "frames": number, "rate": clip.rate, "shares": self._shares(counts)}
        self._done["videos"][name] = facts
        if clip.bad:
            raise UserError(f"{name}: {len(clip.bad)} of {clip.count} frames left out, the first: {clip.bad[0]}")
        if number < 0.99 * clip.count:
            raise UserError(f"{paths[0]} ends after {number} of {clip.count} frames: copy or download it again")

    def _facts(self, path: epath.Path, label: np.ndarray) -> dict[str, Any]:
        counts = np.bincount(label.reshape(-1), minlength=256)
        return {"file": str(path), "height": label.shape[0], "width": label.shape[1], "shares": self._shares(counts)}

    def _shares(self, counts: np.ndarray) -> dict[str, float]:
        """Class to its share of the pixels, of the classes that occur."""
        names = dict(enumerate(self._classes.names)) | {IGNORE: "no class"}
        return {names[k]: round(float(counts[k] / counts.sum()), 6) for k in np.flatnonzero(counts).tolist()}

    def _write(self, inputs: Inputs) -> None:
        known = {kind: self._earlier.get(kind, {}) | done for kind, done in self._done.items()}
        content = {"made_by": self._made_by, **known}
        content |= {"failed": self.failed, "passed_over": dict(inputs.passed_over)}
        write_whole(self.folder / SUMMARY, (json.dumps(content, indent=1) + "\n").encode())
