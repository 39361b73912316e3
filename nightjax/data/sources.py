# SPDX-License-Identifier: Apache-2.0
"""Random access to records: TFDS data sets, prepared on first use, plain folders, and lists for tests.

A record is a dict of features that is the same for all data sets: ``image``, ``label``, ``reference`` and ``invalid``
as encoded bytes, ``image_id`` and other names as str, ``class_pixels`` int32[K], and in NightStreet ``flow`` and
``flow_valid``. TensorFlow is never imported.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from nightjax.core import class_section, files, manifest, paths
from nightjax.core.class_merges import CAMVID_11
from nightjax.core.classes import CAMVID, CITYSCAPES, ClassSet
from nightjax.core.config import suggestion
from nightjax.core.errors import Absent, UserError
from nightjax.data import conversion, datasets, folders, labels, splits, transforms
from nightjax.data.folders import FolderSource
from nightjax.data.leftovers import left_out
from nightjax.data.locks import machine_lock, refuse_stores
from nightjax.data.tfds_source import TfdsSource, explained, open_builder, ordered_fields

Record = Mapping[str, Any]
"""Features by name, as above."""

TRANSLATED, VERSION = "translated", "1.0.0"
"""Name and version of the data set whose configs ``nightjax translate`` makes."""


STORED_MERGED = dict.fromkeys(("camvid", "camvid/segnet"), (CAMVID, CAMVID_11.table))
"""Data sets whose labels are stored as train ids of Cityscapes that stand for classes of their own: name to these, and
the table from the stored train ids to them."""


class Source(Protocol):
    """Records by position. Picklable, so that worker processes can open it again."""

    name: str
    split: str

    @property
    def classes(self) -> ClassSet:
        """The class set of the labels."""
        ...

    @property
    def label_version(self) -> str:
        """Release of the labels; "none" if there are none."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def class_pixels(self) -> np.ndarray:
        """int32 [N, K]: how many pixels each record has of each class, for rare-class sampling."""
        ...


def open_source(
    name: str,
    split: str,
    *,
    data_dir: str = "",
    manual_dir: str = "",
    classes: ClassSet | None = None,
    merges: conversion.Merges | None = None,
) -> Source:
    """Opens a data set and prepares it first if that has not been done yet.

    Args:
        name: one of these, or several joined by ``+``, which are read as one (see `JoinedSource`):
            a key of `datasets.builder_modules`, followed by ``/config`` if its builder has several configs;
            ``translated/<name>``, a translated data set (see `nightjax.prepare.translated`);
            ``folder`` or ``folder/<key of folders.ENCODINGS>``, a plain folder (see `FolderSource`).
            ``:/path`` at the end replaces ``manual_dir`` for this one. A ``+`` in a path that exists joins nothing.
        split: a split of the data set, or an expression such as ``"train[:50%]"`` or ``"train+val"``.
        data_dir: where prepared data sets are kept; default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
        manual_dir: where the downloaded files are; for a plain folder, the folder itself. A data set that is already
            prepared needs none, and refuses any but the one it was prepared from.
        classes: in whose train ids labels are read, see `conversion.converted`; None for those they are stored in.
        merges: what becomes of the classes of other sets, by the name of their set.

    Raises:
        Absent: a data set that is not prepared needs ``manual_dir``, or has no files in it.
        UserError: the data set, config, table or split is unknown; ``manual_dir`` holds nothing usable or is not the
            one that the data set was prepared from; the prepared data are damaged.
    """
    if len(parts := parts_of(name)) > 1:
        options: dict[str, Any] = {"data_dir": data_dir, "manual_dir": manual_dir, "merges": merges}
        first = open_source(parts[0], split, classes=classes, **options)
        rest = [open_source(part, split, classes=classes or first.classes, **options) for part in parts[1:]]
        return JoinedSource([first, *rest])
    source = _open_stored(name, split, data_dir=data_dir, manual_dir=manual_dir)
    if classes is None or source.classes.same_classes(classes):
        return source
    if isinstance(source, FolderSource):
        used = source.reader.codes.train_ids
        table = conversion.table_between(source.classes, classes, merges or {}, source.name, used)
        return source.renumbered(table, classes)
    if (dataset := name.partition(":")[0]) in STORED_MERGED:
        own, table = STORED_MERGED[dataset]
        source = conversion.ConvertedSource(source, table, own)
    return conversion.converted(source, classes, merges or {})


def class_set(name: str, *, data_dir: str = "", manual_dir: str = "") -> ClassSet:
    """The classes that a data set tells apart: what a run learns that names no others.

    Args:
        name, data_dir, manual_dir: as of `open_source`; of several data sets the first one counts.
    """
    name, _, root = parts_of(name)[0].partition(":")
    dataset, _, config = name.partition("/")
    if dataset == "folder" and (root or manual_dir):
        place = pathlib.Path(folder_root(root, manual_dir)).expanduser()
        return folders.label_codes(place, config or "train_ids")[1]
    made = epath.Path(prepared_dir(data_dir)) / TRANSLATED / config / VERSION
    if dataset == TRANSLATED and made.exists():  # If it does not, opening it says so.
        return class_section.of_section((open_builder(made).info.metadata or {}).get("classes"))
    return STORED_MERGED[name][0] if name in STORED_MERGED else CITYSCAPES


def _open_stored(name: str, split: str, *, data_dir: str, manual_dir: str) -> Source:
    """A data set in the train ids that it is stored in."""
    name, _, root = name.strip().partition(":")
    dataset, _, config = name.partition("/")
    if dataset == "folder":
        return FolderSource(folder_root(root, manual_dir), split, encoding=config or "train_ids")
    manual_dir = root or manual_dir
    data_dir, manual_dir = prepared_dir(data_dir), os.path.expanduser(manual_dir)
    builder = _named(dataset, config, data_dir)
    was_prepared = _is_prepared(builder)
    if not was_prepared:
        _prepare(builder, data_dir, manual_dir)
        builder = _builder(dataset, config, data_dir)  # Reads what another process may have prepared meanwhile.
    _check_origin(name, builder, manual_dir)
    _check_splits(name, builder, split)
    for whole in splits.names(split):
        for file in builder.info.splits[whole].filepaths:
            if not file.exists():
                raise UserError(f"{file} is missing: delete the folder {builder.data_path} to prepare it again")
            files.check_file(file)
        if was_prepared and (lost := _left_out(builder, whole)):
            print(f"{name}, {whole}: {lost}; mend them and delete the folder {builder.data_path} to prepare it again")
    return TfdsSource(name, split, str(builder.data_path), _shrunk_by(builder, data_dir))


def check_available(name: str, split: str, *, data_dir: str = "", manual_dir: str = "") -> None:
    """Checks that `open_source` will find a data set that a builder makes, without preparing it.

    Raises:
        UserError: an unknown data set, config or split; or it is not prepared, and its files are not there.
    """
    name, _, root = name.strip().partition(":")
    dataset, _, config = name.partition("/")
    data_dir, manual_dir = prepared_dir(data_dir), os.path.expanduser(root or manual_dir)
    builder = _named(dataset, config, data_dir)
    if _is_prepared(builder):
        _check_origin(name, builder, manual_dir)
        _check_splits(name, builder, split)
    else:
        _check_files(builder, data_dir, manual_dir)


def parts_of(name: str) -> list[str]:
    """The data sets that a name joins by ``+``.

    Raises:
        UserError: one of them is nothing, or names no path behind its colon.
    """
    found = [part.strip() for part in paths.cut(name, "+", ":")]
    if wrong := [part for part in found if part.endswith(":") or (not part and len(found) > 1)]:
        raise UserError(f"data set {name!r}: {wrong[0]!r} names no data set; write NAME, NAME/CONFIG or folder:/PATH")
    return found


def folder_root(path: str, manual_dir: str) -> str:
    """Where a plain folder is: at the path in its name, or if that is not there (any more) at ``manual_dir``.

    A ``manual_dir`` that several folders were moved to holds them under the names that they had.
    """
    if not path or not manual_dir or os.path.isdir(os.path.expanduser(path)):
        return path or manual_dir
    inside = os.path.join(manual_dir, os.path.basename(path.rstrip("/")))
    return inside if os.path.isdir(os.path.expanduser(os.path.join(inside, "images"))) else manual_dir


class JoinedSource:
    """Several sources one after another, so that each is drawn in proportion to its size.

    Ask for features that all of them have: a record has only those of its own source.
    """

    def __init__(self, parts: Sequence[Source]):
        self.parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.name = "+".join(part.name for part in parts)
        self.split = parts[0].split
        self.classes = parts[0].classes
        self.label_version = " + ".join(dict.fromkeys(part.label_version for part in parts))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part][index - (int(self._ends[part - 1]) if part else 0)]

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in every record, int32 [N, K]."""
        return np.concatenate([part.class_pixels() for part in self.parts])


class ListSource:
    """Records held in memory, for tests and notebooks."""

    label_version = "in memory"

    def __init__(
        self,
        records: Sequence[Record],
        *,
        name: str = "in-memory",
        split: str = "all",
        classes: ClassSet = CITYSCAPES,
    ):
        self.name = name
        self.classes = classes
        self.split = split
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in every record, int32 [N, K]. Decodes every label."""
        count = len(self.classes)
        decoded = [transforms.decode(record, ("label",), count)["label"] for record in self._records]
        return np.stack([labels.class_pixels(label, count) for label in decoded])


def prepared_dir(data_dir: str = "") -> str:
    """Where prepared data sets are kept: ``data_dir``, else ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.

    Raises:
        UserError: it is in an object store whose records cannot be read.
    """
    place = os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    if "://" in place and not place.startswith("gs://"):
        raise UserError(f"data_dir {place}: records are read from a disk or from gs://; copy the folder to a disk")
    return place


def _shrunk_by(builder: tfds.core.DatasetBuilder, data_dir: str) -> int:
    """How much smaller the stored sides of a data set are than those of its files."""
    made_of = ((builder.info.metadata or {}).get("provenance") or {}).get("data", "")
    if made_of:  # Translated images have the size of their originals, and their labels.
        origins = [_words(part) for part in parts_of(made_of)]
        made = [_builder(*words, data_dir) for words in origins if words[0] in datasets.builder_modules()]
        factors = {_shrunk_by(origin, data_dir) for origin in made}
        return factors.pop() if len(factors) == 1 else 1
    recipe = getattr(builder.builder_config, "recipe", None)
    return recipe.divide_by if recipe is not None else 1


def _words(name: str) -> tuple[str, str]:
    """The data set and the config of ``NAME/CONFIG:PATH``."""
    dataset, _, config = name.partition(":")[0].partition("/")
    return dataset, config


def _named(dataset: str, config: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """The builder of a data set that is no folder."""
    if dataset == TRANSLATED:
        return _translated(config, data_dir)
    if dataset in datasets.builder_modules():
        return _builder(dataset, config, data_dir)
    known = [*datasets.builder_modules(), TRANSLATED, "folder"]
    raise UserError(f"unknown data set {'/'.join(filter(None, (dataset, config)))!r}{suggestion(dataset, known)}")


def _check_splits(name: str, builder: tfds.core.DatasetBuilder, split: str) -> None:
    for whole in splits.names(split):
        if whole not in builder.info.splits:
            raise UserError(f"{name} has no split {whole!r}{suggestion(whole, list(builder.info.splits))}")


def _translated(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    root = epath.Path(data_dir) / TRANSLATED
    if name and (root / name / VERSION / "dataset_info.json").exists():
        return open_builder(root / name / VERSION)
    have = [path.parent.name for path in root.glob(f"*/{VERSION}")]
    raise UserError(
        f"no data set {name!r} in {root}: make it with nightjax translate{suggestion(name, have) if have else ''}"
    )


def _builder(dataset: str, config: str, data_dir: str) -> tfds.core.DatasetBuilder:
    builder_class = datasets.builder_class(dataset)
    configs = [item.name for item in builder_class.BUILDER_CONFIGS]
    if config and config not in configs:
        raise UserError(f"data set {dataset!r} has no config {config!r}{suggestion(config, configs)}")
    for file in pathlib.Path(data_dir, dataset).glob("**/*.json"):  # TFDS reads what it finds there.
        files.check_file(file)
    try:
        return builder_class(config=config or None, data_dir=data_dir, file_format="array_record")
    except UserError:
        raise
    except Exception:  # It reads what has been prepared.
        with explained(os.path.join(data_dir, dataset, config)):
            raise


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    if not builder.data_path.exists():
        return False
    if (builder.data_path / "dataset_info.json").exists():
        return True
    raise UserError(f"{builder.data_path} was only partly prepared: delete the folder and start again")


def _prepare(builder: tfds.core.DatasetBuilder, data_dir: str, manual_dir: str) -> None:
    """Prepares the data set once, however many processes of this machine ask for it."""
    _check_files(builder, data_dir, manual_dir)
    download = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    tfds.disable_progress_bar()  # Builders show their own.
    with machine_lock(data_dir):
        if not _is_prepared(builder):
            for draft in builder.data_path.parent.glob("incomplete.*"):  # Of a process that was killed.
                draft.rmtree()
            with ordered_fields():  # The same files give the same bytes, whoever prepares them.
                builder.download_and_prepare(download_config=download)
            manifest.write(builder.data_path)


def _check_files(builder: tfds.core.DatasetBuilder, data_dir: str, manual_dir: str) -> None:
    """Refuses to prepare a data set whose files are nowhere, or where none can be prepared."""
    refuse_stores(data_dir)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        asked = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        if not manual_dir:
            raise Absent(f"data set {builder.name!r} needs manual_dir. {asked}")
        if not epath.Path(manual_dir).is_dir():
            raise UserError(f"data set {builder.name!r}: manual_dir {manual_dir} is no folder. {asked}")


def _check_origin(name: str, builder: tfds.core.DatasetBuilder, manual_dir: str) -> None:
    """Refuses a folder that the prepared data were not made from, because nothing would be read from it."""
    # None: not made from files, or prepared before this was recorded.
    origin = (builder.info.metadata or {}).get("manual_dir")
    if origin and manual_dir and os.path.realpath(manual_dir) != origin:
        absent = "" if os.path.isdir(manual_dir) else ", which does not exist"
        raise UserError(
            f"{name} was prepared from {origin}, not from manual_dir {manual_dir}{absent}: delete the folder "
            f"{builder.data_path} to prepare it again, name another --config.data.dir, or leave out manual_dir "
            f"(if other sets need it, call this one {name}:{origin})"
        )


def _left_out(builder: tfds.core.DatasetBuilder, split: str) -> str:
    report = (builder.info.metadata or {}).get("splits", {}).get(split)
    return left_out(report) if report else ""
