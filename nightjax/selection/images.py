# SPDX-License-Identifier: Apache-2.0
"""Images by position, wherever they are: a plain folder, or a split of a data set."""

import pathlib
import re
from collections.abc import Iterator

import numpy as np

from nightjax.core import files, paths
from nightjax.core.errors import UserError
from nightjax.data import sources, splits, transforms, walking
from nightjax.zoo import benchmarks


class ImageSet:
    """A sequence of (name, uint8 [H, W, 3] RGB), decoded when asked for.

    Args:
        where: a folder, searched with its sub-folders and read in the order of names; or ``DATASET@SPLIT`` such as
            ``nightstreet/std_pairs@target_pairs``, with a data set of `sources.open_source`; or several with commas
            between.
        data_dir, manual_dir: see `sources.open_source`.

    Raises:
        UserError: no such folder or data set, or no images in it.
    """

    def __init__(self, where: str, *, data_dir: str = "", manual_dir: str = ""):
        self.where = where
        parts = [_open(part, data_dir, manual_dir) for part in _places(where)]
        self._records = [(part, i) for part in parts for i in range(len(part))]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        record = self._record(index)
        return str(record["image_id"]), transforms.decode_image(record["image"], f"{self.where}, {record['image_id']}")

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def images(self) -> Iterator[np.ndarray]:
        """The images without their names."""
        return (image for _, image in self)

    def names(self) -> list[str]:
        """All names, without decoding.

        Raises:
            UserError: two images have one name.
        """
        names = [str(self._record(index)["image_id"]) for index in range(len(self))]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{self.where}: two images are called {twice!r}; give the sets one by one")
        return names

    def sizes(self) -> set[tuple[int, int]]:
        """Every (height, width), from the files' headers alone."""
        return {transforms.image_size(self._record(index)) for index in range(len(self))}

    def _record(self, index: int) -> sources.Record:
        part, i = self._records[index]
        return part[i]


def scored_by(where: str) -> str:
    """Which evaluation set a set of images is, or "": training should not look at those.

    A split, or the last two parts of a folder's path, with a word that begins with test count too.
    """
    known = [
        *benchmarks.EVAL_SETS.items(),
        *(item for one in benchmarks.BENCHMARKS.values() for item in one["eval"].items()),
    ]
    for part in _places(where):
        dataset, _, split = ("", "", "") if pathlib.Path(part).is_dir() else part.rpartition("@")
        sets = {one.partition(":")[0] for one in sources.parts_of(dataset)}
        named = set(splits.names(split))
        for name, rule in known:
            if rule["dataset"] != "folder" and rule["dataset"] in sets and rule["split"] in named:
                return name
        ends = split if dataset else "/".join(pathlib.PurePath(part).parts[-2:])
        if re.search(r"(?i)(^|[^a-z])test", ends):
            return f"a test set by its name, {ends}"
    return ""


class _FolderRecords:
    def __init__(self, root: pathlib.Path):
        if not root.is_dir():
            raise UserError(f"{root} is no folder: give a folder of images, or DATASET@SPLIT")
        listing = walking.walk(root)
        if passed := listing.summary():
            print(f"{root}: {passed}", flush=True)
        self._files = list(listing.files.items())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> sources.Record:
        name, path = self._files[index]
        return {"image_id": walking.without_suffix(name), "image": files.read_bytes(path)}


def _places(where: str) -> list[str]:
    return paths.cut(where, ",")


def _open(where: str, data_dir: str, manual_dir: str) -> sources.Source | _FolderRecords:
    dataset, at, split = where.rpartition("@")
    if at and not pathlib.Path(where).is_dir():
        records = sources.open_source(dataset, split, data_dir=data_dir, manual_dir=manual_dir)
    else:
        records = _FolderRecords(pathlib.Path(where).expanduser())
    if not len(records):
        raise UserError(f"{where} holds no images: give a folder of images, or DATASET@SPLIT")
    return records
