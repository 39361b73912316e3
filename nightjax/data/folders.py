"""Plain folders of images as record sources, for data without a builder."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.config import suggestion
from nightjax.core.errors import UserError
from nightjax.data import labels, labels_json, transforms

LABEL_TABLES = {
    "train_ids": None,
    "label_ids": CITYSCAPES.from_ids,
    "camvid": labels.CAMVID_ID_TO_TRAIN_ID,
    "synthia": labels.SYNTHIA_ID_TO_TRAIN_ID,
}
"""What the label files of a plain folder hold, and the table that converts it to train ids."""

OWN = "own"
"""Encoding that the folder's ``labels.json`` says, with a class set of its own if it names one; see `labels_json`."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class FolderSource:
    """Images in a plain folder.

    ``root/images/**`` holds PNG or JPEG files. A label (PNG) and a reference image are optional; they have the same
    relative name in ``root/labels/`` and ``root/references/``. The split ``"all"`` has every image, ordered by name.
    Any other split is ``root/lists/<split>.txt``, one relative name a line with or without suffix, or the subfolder
    ``root/images/<split>/``.

    Args:
        root: the folder.
        split: see above.
        encoding: see `label_table`.
    """

    def __init__(self, root: str, split: str = "all", *, encoding: str = "train_ids"):
        if not root:
            raise UserError(
                "data set 'folder' needs manual_dir, or a name such as folder:/path: the folder that holds images/"
            )
        self.name = f"folder {root}"
        self.split = split
        self._root = pathlib.Path(root).expanduser()
        encoding, self._table = label_table(self._root, encoding)
        self.classes = class_set(self._root, encoding)
        self.label_version = f"folder, {encoding}"
        images = self._root / "images"
        if not images.is_dir():
            raise UserError(f"no folder {images}: put the images there, or name another manual_dir")
        found = by_relative_stem(images)
        self._images = [(stem, found[stem]) for stem in self._stems_of(split, found)]
        self._references = by_relative_stem(self._root / "references")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        stem, image = self._images[index]
        record: dict[str, Any] = {"image_id": stem, "image": _read(image)}
        label = label_path(self._root, stem)
        if label.exists():
            record["label"] = self._train_ids(_read(label), f"{label}")
        if stem in self._references:
            record["reference"] = _read(self._references[stem])
        return record

    def class_pixels(self) -> np.ndarray:
        """See `Source`. Decodes every label."""
        rows = []
        for record in self:
            if "label" not in record:
                raise UserError(f"{self.name}: {record['image_id']} has no label: switch rare-class sampling off")
            label = transforms.decode_label(record["label"], record["image_id"])
            rows.append(labels.class_pixels(label, len(self.classes)))
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)), np.int32)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _train_ids(self, data: bytes, where: str) -> bytes | np.ndarray:
        return data if self._table is None else self._table[transforms.decode_label(data, where)]

    def _stems_of(self, split: str, found: Mapping[str, pathlib.Path]) -> list[str]:
        if split == "all":
            return list(found)
        listing = self._root / "lists" / f"{split}.txt"
        if listing.is_file():
            names = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
            stems = [_without_suffix(name) for name in names]
            for stem in stems:
                if stem not in found:
                    raise UserError(f"{listing} names {stem!r}, which is not under {self._root / 'images'}")
            return stems
        if (self._root / "images" / split).is_dir():
            return [stem for stem in found if stem.startswith(f"{split}/")]
        have = ["all", *sorted(path.stem for path in (self._root / "lists").glob("*.txt"))]
        have += sorted(path.name for path in (self._root / "images").iterdir() if path.is_dir())
        raise UserError(f"{self.name} has no split {split!r}{suggestion(split, have)}")


def label_table(root: pathlib.Path, encoding: str) -> tuple[str, np.ndarray | None]:
    """How to read the label files of a folder.

    Args:
        root: the folder.
        encoding: key of `LABEL_TABLES`, or `OWN`. A ``labels.json`` in the folder replaces the default, train ids.

    Returns:
        The encoding, and the uint8[256] that converts it to train ids; None if the files hold train ids.
    """
    if encoding not in {*LABEL_TABLES, OWN}:
        raise UserError(f"unknown label table {encoding!r} for a folder{suggestion(encoding, [*LABEL_TABLES, OWN])}")
    path = root / "labels.json"
    if encoding == OWN or (encoding == "train_ids" and path.is_file()):
        return OWN, labels_json.read(path).codes.table()
    return encoding, LABEL_TABLES[encoding]


def class_set(root: pathlib.Path, encoding: str = "train_ids") -> ClassSet:
    """The class set of a folder's train ids; arguments as of `label_table`."""
    encoding, _ = label_table(root, encoding)
    return labels_json.read(root / "labels.json").classes if encoding == OWN else CITYSCAPES


def label_path(root: pathlib.Path, stem: str) -> pathlib.Path:
    """Where the label of an image belongs."""
    return root / "labels" / f"{stem}.png"


def list_images(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (name in the folder without suffix, path) of every PNG and JPEG file below it, sorted by path."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        yield _without_suffix(path.relative_to(folder).as_posix()), path


def by_relative_stem(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """`list_images` as a dict.

    Raises:
        UserError: two files differ only in their suffixes.
    """
    found: dict[str, pathlib.Path] = {}
    for stem, path in list_images(folder):
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have one name: rename or remove one of them")
        found[stem] = path
    return found


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
