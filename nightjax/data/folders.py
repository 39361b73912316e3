# SPDX-License-Identifier: Apache-2.0
"""Plain folders of images as record sources, for data without a builder."""

import concurrent.futures
import copy
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.core import files
from nightjax.core.classes import CITYSCAPES, ClassSet, LabelCodes
from nightjax.core.errors import UserError, suggestion
from nightjax.core.types import IGNORE
from nightjax.data import containers, labels, labels_json, splits, walking
from nightjax.data.containers import BrokenFile
from nightjax.data.label_reading import LabelReader, ReadLabel

ENCODINGS: Mapping[str, LabelCodes] = {
    "train_ids": LabelCodes.of_train_ids(len(CITYSCAPES)),
    "label_ids": LabelCodes.of_table(CITYSCAPES.from_ids, (*labels.LABEL_IDS, IGNORE)),
    "camvid": LabelCodes.of_table(labels.CAMVID_ID_TO_TRAIN_ID, (11, IGNORE)),
    "synthia": LabelCodes.of_table(labels.SYNTHIA_ID_TO_TRAIN_ID, (*range(23), IGNORE)),
}
"""What the label files of a plain folder may hold, and how that spells Cityscapes' classes."""

OWN = "own"
"""Encoding that the folder's ``labels.json`` describes; see `labels_json`."""

_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".heic", ".heif")


class LazyRecord(Mapping[str, Any]):
    """One record, whose files are read when they are asked for."""

    def __init__(self, parts: Mapping[str, Callable[[], Any]]):
        self._parts = parts

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class FolderSource:
    """Images in a plain folder.

    ``root/images/**`` holds the images, of any kind that `walking.IMAGE_SUFFIXES` names. A label and a reference image
    are optional; they have the same relative name, but for the suffix, in ``root/labels/`` and ``root/references/``.
    The split ``"all"`` has every image, ordered by name. Any other split is ``root/lists/<split>.txt``, one relative
    name a line with or without suffix, or the subfolder ``root/images/<split>/``. See `splits` for slices and sums.

    Attributes:
        classes: what the train ids mean.
        names: of the records, relative to ``images/``, without suffix.
        images: path of each record's image.
        labels, references: record name to path; records without one are absent.
        passed: what was passed over, relative to the root, to the reason.
        lonely: ``"labels"`` and ``"references"`` to the names of those that belong to no record.

    Args:
        root: the folder.
        split: see above.
        encoding: key of `ENCODINGS`, or `OWN`. A ``labels.json`` in the folder replaces the default, train ids.
    """

    def __init__(self, root: str | os.PathLike, split: str = "all", *, encoding: str = "train_ids"):
        if not root:
            raise UserError(
                "data set 'folder' needs manual_dir, or a name such as folder:/path: the folder that holds images/"
            )
        self.name = f"folder {root}"
        self.split = split
        self.root = pathlib.Path(root).expanduser()
        self.encoding, self.classes, codes = label_codes(self.root, encoding)
        self.reader = LabelReader(codes)
        self.label_version = f"folder, {self.encoding}"
        self.passed: dict[str, str] = {}
        self.lonely: dict[str, list[str]] = {}
        if not (self.root / "images").is_dir():
            raise UserError(
                f"no folder {self.root / 'images'}: put the images there, or name another manual_dir{_loose(self.root)}"
            )
        found = self._select(split)
        self.names = [name for name, _ in found]
        self.images = [path for _, path in found]
        self._places = {name: index for index, name in reversed(list(enumerate(self.names)))}
        self.labels = self._partners("labels", _LOSSY_SUFFIXES)
        self.references = self._partners("references")
        self._told = False

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> LazyRecord:
        name, image = self.names[index], self.images[index]
        parts: dict[str, Callable[[], Any]] = {
            "image_id": lambda: name,
            "image": lambda: files.read_bytes(image),
            "image_size": lambda: containers.read_header(image).size,
        }
        if name in self.labels:
            parts["label"] = lambda: self._train_ids(name)
        if name in self.references:
            parts["reference"] = lambda: files.read_bytes(self.references[name])
        return LazyRecord(parts)

    def __iter__(self) -> Iterator[LazyRecord]:
        return (self[index] for index in range(len(self)))

    def read_label(self, name: str) -> ReadLabel:
        """The label of a record, by its name, with the count of what nobody named.

        Raises:
            UserError: the file is damaged, of a kind that changes values, or holds wrong train ids.
        """
        path = self.labels[name]
        try:
            label = self.reader.read(files.read_bytes(path))
        except BrokenFile as error:
            raise UserError(f"record {name!r}: label {path} {error}") from error
        if label.unnamed and self.encoding == "train_ids":
            raise UserError(
                f"record {name!r}: label id {next(iter(label.unnamed))} is no train id (0..{len(self.classes) - 1}, "
                f"{IGNORE} = ignore); convert the labels, or say what the values mean in {labels_json.FILE}"
            )
        return label

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in every record, int32 [N, K]. Decodes every label."""
        if lacking := next((name for name in self.names if name not in self.labels), None):
            raise UserError(f"{self.name}: {lacking} has no label: switch rare-class sampling off")
        count = lambda name: np.bincount(self.read_label(name).train_ids.ravel(), minlength=256)[: len(self.classes)]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = list(pool.map(count, self.names))
        return np.stack(rows).astype(np.int32) if rows else np.zeros((0, len(self.classes)), np.int32)

    def subset(self, indices: Sequence[int]) -> "FolderSource":
        """Some of the records as a source of their own, cheap to send to another process."""
        part = copy.copy(self)
        part.names, part.images = [self.names[i] for i in indices], [self.images[i] for i in indices]
        part.labels = {name: self.labels[name] for name in part.names if name in self.labels}
        part.references = {name: self.references[name] for name in part.names if name in self.references}
        part.passed, part.lonely = {}, {}
        part._places = {name: index for index, name in enumerate(part.names)}
        return part

    def renumbered(self, table: np.ndarray, classes: ClassSet) -> "FolderSource":
        """The same records, their labels in the train ids of another class set, by a uint8[256] table from these."""
        other = copy.copy(self)
        other.classes, other.reader = classes, LabelReader(self.reader.codes.renumbered(table))
        return other

    def place(self, name: str) -> int:
        """Position of the first record of a name."""
        return self._places[name]

    def passed_summary(self, parts: tuple[str, ...]) -> str:
        """`walking.Listing.summary` of what lies below some parts of the root, such as ``"labels/"``."""
        return walking.Listing({}, {name: why for name, why in self.passed.items() if name.startswith(parts)}).summary()

    def splits(self) -> list[str]:
        """The names of splits, without ``"all"``: lists and subfolders of ``images/``."""
        listed = [walking.without_suffix(name, (".txt",)) for name in self._lists()]
        folders = [
            walking.normalized(name)
            for name, kind, _, why in walking.entries(self.root / "images")
            if kind == "folder" and not why
        ]
        return list(dict.fromkeys([*listed, *folders]))

    def has_split(self, name: str) -> bool:
        """Whether there is a list or a subfolder of this name."""
        return name == "all" or f"{name}.txt" in self._lists() or self._subfolder(name) is not None

    def _train_ids(self, name: str) -> np.ndarray:
        label = self.read_label(name)
        if label.unnamed and not self._told:
            self._told = True  # The others are for nightjax check to tell.
            code, pixels = max(label.unnamed.items(), key=lambda item: item[1])
            print(
                f"{self.name}: nobody named {code}, which {pixels} pixels of {name} have; such pixels are ignored, "
                "and nightjax check counts them",
                flush=True,
            )
        return label.train_ids

    def _select(self, expression: str) -> list[tuple[str, pathlib.Path]]:
        if self.has_split(expression):
            return self._whole(expression)
        return splits.select(expression, self._whole)

    def _whole(self, split: str) -> list[tuple[str, pathlib.Path]]:
        if split == "all":
            return list(self._listing("images").items())
        if path := self._lists().get(f"{split}.txt"):
            return self._listed(path)
        if folder := self._subfolder(split):
            split = walking.normalized(split.strip("/"))
            return list(self._listing("images", folder, f"{split}/").items())
        raise UserError(f"{self.name} has no split {split!r}{suggestion(split, ['all', *self.splits()])}")

    def _listed(self, path: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
        """The images that a list names, in its order."""
        found = self._listing("images", repeated=True)
        names = []
        for line in files.read_text(path).split("\n"):
            name = walking.normalized(line.strip().strip('"').replace("\\", "/"))
            if not name:
                continue
            stem = walking.without_suffix(name.removeprefix("./"))
            stem = stem if stem in found else stem.removeprefix("images/")
            if stem not in found:
                raise UserError(f"{path} names {name!r}, which is not under {self.root / 'images'}")
            names.append((stem, found[stem]))
        return names

    def _lists(self) -> dict[str, pathlib.Path]:
        if not (self.root / "lists").is_dir():
            return {}
        return {
            f"{walking.normalized(os.path.splitext(name)[0])}.txt": self.root / "lists" / name
            for name, kind, _, why in walking.entries(self.root / "lists")
            if kind == "file" and not why and name.lower().endswith(".txt")
        }

    def _subfolder(self, split: str) -> pathlib.Path | None:
        folder = self.root / "images"
        for part in split.strip("/").split("/"):
            inside = {walking.normalized(name): name for name, kind, *_ in walking.entries(folder) if kind == "folder"}
            name = inside.get(walking.normalized(part))
            if name is None:
                return None
            folder = folder / name
        return folder

    def _partners(self, part: str, lossy: Sequence[str] = ()) -> dict[str, pathlib.Path]:
        """The files in ``labels/`` or ``references/`` that belong to the records, by record name."""
        found = self._listing(part, repeated=True, second=lossy)
        known = set(self.names)
        self.lonely[part] = [name for name in found if name not in known]
        return {name: found[name] for name in self.names if name in found}

    def _listing(
        self,
        part: str,
        folder: pathlib.Path | None = None,
        prefix: str = "",
        *,
        repeated: bool = False,
        second: Sequence[str] = (),
    ) -> dict[str, pathlib.Path]:
        """Name without suffix to path, of the image files in a part of the root; ``second`` suffixes give way."""
        listing = walking.walk(folder or self.root / part, repeated=repeated)
        self.passed |= {f"{part}/{prefix}{name}": why for name, why in listing.passed.items()}
        found: dict[str, pathlib.Path] = {}
        for name, path in listing.files.items():
            stem = prefix + walking.without_suffix(name)
            if stem in found:
                first, other = sorted((found[stem], path), key=lambda file: file.suffix.lower() in second)
                if other.suffix.lower() not in second:
                    raise UserError(f"{found[stem]} and {path} have one name: rename or remove one of them")
                self.passed[f"{part}/{os.path.dirname(stem)}/{other.name}"] = f"{first.name} has this name too"
                path = first
            found[stem] = path
        return found


def label_codes(root: pathlib.Path, encoding: str) -> tuple[str, ClassSet, LabelCodes]:
    """How to read the label files of a folder: the encoding, the classes, and how the files spell them.

    Raises:
        UserError: an unknown encoding, or a ``labels.json`` that is missing or wrong.
    """
    if encoding not in {*ENCODINGS, OWN}:
        raise UserError(f"unknown label table {encoding!r} for a folder{suggestion(encoding, [*ENCODINGS, OWN])}")
    path = root / labels_json.FILE
    if encoding == OWN or (encoding == "train_ids" and path.is_file()):
        own = labels_json.read(path)
        return OWN, own.classes, own.codes
    return encoding, CITYSCAPES, ENCODINGS[encoding]


def _loose(root: pathlib.Path) -> str:
    """A hint where the images lie in the folder itself, or the folder is missing."""
    if not root.is_dir():
        return f" ({root} does not exist)"
    loose = [name for name, kind, _, why in walking.entries(root) if kind == "file" and not why]
    loose = [name for name in loose if re.search(r"\.(png|jpe?g)$", name.lower())]
    return f" ({len(loose)} images lie in {root} itself)" if loose else ""
