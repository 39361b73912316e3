# SPDX-License-Identifier: Apache-2.0
"""Translated data sets: the labels and facts of a source with images that a translator made.

The images are written first, one file for each record, so that the work can be stopped, continued and shared by
processes. Once all images are there, the records are written: a prepared TFDS data set that streams read as
``translated/<name>``. The same images give the same bytes, however often the work was interrupted.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from nightjax.core import manifest
from nightjax.core.class_section import section_of
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.files import read_json
from nightjax.core.progress import Progress
from nightjax.data import labels, transforms
from nightjax.data.imagefiles import encode_png
from nightjax.data.locks import machine_lock, refuse_stores
from nightjax.data.sources import TRANSLATED, VERSION, Source, class_set, open_source, prepared_dir
from nightjax.data.tfds_source import open_builder, ordered_fields
from nightjax.prepare import builder

Provenance = Mapping[str, Any]
"""JSON-serializable facts that every image depends on."""

Translator = Callable[[str, np.ndarray], np.ndarray]
"""Maps (name of the record, uint8 [H, W, 3]) to uint8 [H, W, 3], a pure function."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """The making of one translated data set.

    Attributes:
        name: of the data set, after ``translated/``.
        data_dir: where prepared data sets are kept.
        sources: split to the source that is translated.
        provenance: what the images are made by and from.
        condition: the light that they show, one of `builder.CONDITIONS`.
    """

    name: str
    data_dir: pathlib.Path
    sources: Mapping[str, Source]
    provenance: Provenance
    condition: str

    def __post_init__(self):
        for name in (self.name, *self.sources):
            if not re.fullmatch(r"[\w-]+", name):
                raise UserError(f"{name!r} is no name for a data set or split: use letters, digits and underscores")

    @property
    def path(self) -> pathlib.Path:
        """Folder of the finished data set."""
        return self.data_dir / TRANSLATED / self.name / VERSION

    @property
    def _unfinished(self) -> pathlib.Path:
        return self.data_dir / TRANSLATED / f"{self.name}.unfinished"

    def is_done(self) -> bool:
        """Whether the data set is finished.

        Raises:
            UserError: there is a data set of this name, made by or from something else.
        """
        if not (self.path / "dataset_info.json").exists():
            return False
        found = (open_builder(self.path).info.metadata or {}).get("provenance") or {}
        self._check_same(found, self.path)
        return True

    def begin(self) -> None:
        """Claims the name, or joins the work on it.

        Raises:
            UserError: there are images already, made by or from something else.
        """
        claim = self._unfinished / "provenance.json"
        self._unfinished.mkdir(parents=True, exist_ok=True)
        if not claim.exists():
            _write(claim, json.dumps(self.provenance, indent=1, sort_keys=True).encode())
        self._check_same(read_json(claim, dict, "delete that folder to start again"), self._unfinished)

    def missing(self, shard: int = 0, shards: int = 1) -> Iterator[tuple[str, int]]:
        """(split, position) of every ``shards``-th record, from ``shard`` on, that has no image yet."""
        for split, source in self.sources.items():
            for index in range(shard, len(source), shards):
                if not self._image(split, index).exists():
                    yield split, index

    def write_image(self, split: str, index: int, image: np.ndarray) -> None:
        """Stores a translated image, uint8 [H, W, 3], of the size of its original."""
        _write(self._image(split, index), encode_png(image))

    def make(self, translate: Translator, shard: int = 0, shards: int = 1) -> bool:
        """Translates the images of one process that are still missing; writes the records if none is missing then.

        Args:
            translate: makes the images.
            shard: number of this process, from 0.
            shards: number of processes that share the work.

        Returns:
            Whether the data set is complete.

        Raises:
            UserError: there is a data set of this name, made by or from something else.
        """
        if not self.is_done():
            self.begin()
            for split, index in Progress(list(self.missing(shard, shards)), unit="image"):
                record = self.sources[split][index]
                image = transforms.decode(record, ("image",))["image"]
                self.write_image(split, index, translate(str(record["image_id"]), image))
        return self.finish()

    def finish(self) -> bool:
        """Writes the records if all images are there, then removes the images. Returns whether the data set is done."""
        if not self.is_done() and next(self.missing(), None) is not None:
            return self.is_done()  # Another process may just have finished and tidied up.
        with machine_lock(str(self.data_dir)):
            if not self.is_done():  # Another process may have come first.
                for draft in self.path.parent.glob("incomplete.*"):  # Of a process killed while it wrote the records.
                    shutil.rmtree(draft)
                tfds.disable_progress_bar()
                with ordered_fields():
                    _Builder(self).download_and_prepare()
                manifest.write(self.path)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._unfinished)
        return True

    def examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the records of a split, numbered."""
        source = self.sources[split]
        for index in range(len(source)):
            record = source[index]
            example = {
                "image": self._image(split, index).read_bytes(),
                "image_id": record["image_id"],
                "sequence": record.get("sequence", ""),
                "frame": record.get("frame", -1),
                "condition": self.condition,
                "gps": np.full(2, math.nan),
            }
            if "label" in record:
                label = transforms.decode_label(record["label"], record["image_id"])
                example |= {"label": encode_png(label), "class_pixels": labels.class_pixels(label, len(source.classes))}
            yield index, example

    def record_names(self, split: str) -> str:
        """SHA-256 of the names of a split's records, one on each line."""
        source = self.sources[split]
        names = "".join(f"{source[index]['image_id']}\n" for index in range(len(source)))
        return hashlib.sha256(names.encode()).hexdigest()

    def _image(self, split: str, index: int) -> pathlib.Path:
        return self._unfinished / split / f"{index:07d}.png"

    def _check_same(self, found: Provenance, where: pathlib.Path) -> None:
        wanted = json.loads(json.dumps(self.provenance))
        for key in sorted(wanted.keys() | found.keys()):
            if found.get(key) != wanted.get(key):
                raise UserError(
                    f"{where} was made with {key}={found.get(key)!r}, not {wanted.get(key)!r}; choose another "
                    "--name, or delete that folder to start again"
                )


def open_splits(data: str, splits: Sequence[str], *, data_dir: str, manual_dir: str) -> dict[str, Source]:
    """The splits of a data set to translate, by the name they get in the result: ``all`` becomes ``train``.

    Raises:
        UserError: the data set or split is unknown or has no records.
    """
    opened, classes = {}, class_set(data, data_dir=data_dir, manual_dir=manual_dir)
    for split in splits:
        source = open_source(data, split, data_dir=data_dir, manual_dir=manual_dir, classes=classes)
        if not len(source):
            raise UserError(f"{data}, split {split!r}, has no records")
        opened["train" if split == "all" else split] = source
    return opened


def plan(
    name: str, data: str, opened: Mapping[str, Source], made_by: Provenance, condition: str, data_dir: str = ""
) -> Translation:
    """Describes the making of a translated data set, with its provenance.

    Args:
        name: of the result.
        data: name of the data set that is translated.
        opened: its splits, of `open_splits`.
        made_by: facts about the translator.
        condition: the light that the result shows, one of `builder.CONDITIONS`.
        data_dir: see `prepared_dir`.
    """
    made_of = {split: {"records": len(source), "labels": source.label_version} for split, source in opened.items()}
    provenance = {"made_by": made_by, "data": data, "splits": made_of}
    refuse_stores(place := prepared_dir(data_dir))
    return Translation(name, pathlib.Path(place), opened, provenance, condition)


def default_name(maker: str, data: str) -> str:
    """A name for a result: ``unit_nightstreet_std`` for ``runs/unit`` and ``nightstreet/std``."""
    words = f"{pathlib.Path(maker).name}_{data.partition(':')[0]}"
    return "".join(letter if letter.isalnum() else "_" for letter in words)


with registered.skip_registration():

    class _Builder(builder.ArrayRecordBuilder):
        """Writes the records of a `Translation`."""

        name = TRANSLATED
        VERSION = tfds.core.Version(VERSION)

        def __init__(self, translation: Translation):
            self._translation = translation
            config = tfds.core.BuilderConfig(
                name=translation.name, description="Translated images with the labels of their originals."
            )
            super().__init__(data_dir=os.fspath(translation.data_dir), config=config)

        def _info(self) -> tfds.core.DatasetInfo:
            sources = self._translation.sources.values()
            labeled = all("label" in source[0] for source in sources)
            versions = dict.fromkeys(source.label_version for source in sources)
            classes = next(iter(sources)).classes
            named = {} if classes.same_classes(CITYSCAPES) else {"classes": section_of(classes)}
            return tfds.core.DatasetInfo(
                builder=self,
                description=cast(tfds.core.BuilderConfig, self.builder_config).description,
                features=builder.features(labeled=labeled, classes=classes),
                metadata=tfds.core.MetadataDict(
                    label_version=" + ".join(versions),
                    provenance=dict(self._translation.provenance),
                    **named,
                    record_names={split: self._translation.record_names(split) for split in self._translation.sources},
                ),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
            del dl_manager  # nothing to download
            return {split: self._generate_examples(split) for split in self._translation.sources}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            return self._translation.examples(split)


def _write(path: pathlib.Path, data: bytes) -> None:
    """Writes the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)
