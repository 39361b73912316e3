# SPDX-License-Identifier: Apache-2.0
"""One split of a prepared TFDS data set by position, read without TensorFlow."""

import contextlib
import functools
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer

from nightjax.core import class_section, files
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, first_line

REMEDY = "delete the folder to prepare them again"

RENAMED = {"image_ref": "reference", "ref_id": "reference_id"}
"""Names of features in data sets that were prepared by earlier versions, and their names now."""


def open_builder(path: str | os.PathLike) -> Any:
    """The builder of a prepared data set, a `tfds.core.DatasetBuilder` (whose decorators hide its parameters).

    Raises:
        UserError: its ``dataset_info.json`` or ``features.json`` is missing or damaged, or a pipe or device is in the
            place of one of its files.
    """
    with explained(path):
        for name in ("dataset_info.json", "features.json"):
            files.read_json(os.path.join(path, name), dict, REMEDY)
        for file in epath.Path(path).iterdir():  # Their readers are C++ and would wait for a pipe forever.
            files.check_file(file)
        return tfds.builder_from_directory(path)


@contextlib.contextmanager
def explained(path: str | os.PathLike) -> Iterator[None]:
    """Whatever TFDS stumbles over in a prepared folder is the folder's fault, but for memory and missing packages."""
    try:
        yield
    except (UserError, MemoryError, ImportError):
        raise
    except Exception as error:  # TFDS raises what protobuf, JSON and its own assertions raise.
        raise UserError(f"the prepared data in {path} are damaged ({first_line(error)}): {REMEDY}") from error


@contextlib.contextmanager
def ordered_fields() -> Iterator[None]:
    """Makes TFDS write the fields of a record in the order of their names; its own differs from process to process."""
    serializer = example_serializer.ExampleSerializer
    unordered = serializer.serialize_example
    serializer.serialize_example = lambda self, example: self.get_tf_example(example).SerializeToString(
        deterministic=True
    )
    try:
        yield
    finally:
        serializer.serialize_example = unordered


class TfdsSource:
    """One split of a prepared TFDS data set; images stay encoded.

    Args:
        name: of the data set, for messages.
        split: TFDS split expression.
        path: folder of the prepared data set.
        shrunk_by: how much smaller the stored sides are than those of the files, 2 for half-size variants.
    """

    def __init__(self, name: str, split: str, path: str, shrunk_by: int = 1):
        self.name = name
        self.split = split
        self.path = path
        self._shrunk_by = shrunk_by
        self._length = len(self._reader)

    @property
    def classes(self) -> ClassSet:
        """Classes of the labels; Cityscapes' unless the data set says otherwise."""
        return self._classes

    @functools.cached_property
    def _classes(self) -> ClassSet:
        return class_section.of_section((self._builder.info.metadata or {}).get("classes"))

    @property
    def label_version(self) -> str:
        """Release of the labels as the builder states it, or else the full name of the data set."""
        return (self._builder.info.metadata or {}).get("label_version") or self._builder.info.full_name

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with self._damage_explained():
            record = self._reader[index]
        return {RENAMED.get(key, key): value.decode() if key in self._texts else value for key, value in record.items()}

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in every record, int32 [N, K].

        Reads every record once and keeps the result beside the prepared data.

        A pixel of a half-size variant counts as the four that it stands for, so that a threshold means the same for all
        variants of a data set.
        """
        return self._stored_pixels() * self._shrunk_by**2

    def _stored_pixels(self) -> np.ndarray:
        if "class_pixels" not in self._features:
            raise UserError(f"{self.name} has no labels to count classes in: switch rare-class sampling off")
        # Only whole splits: a slice or a sum of splits makes no file name.
        cache = epath.Path(self.path) / f"class_pixels-{self.split}.npy" if self.split.isidentifier() else None
        if cache is not None and cache.exists() and (kept := self._kept(cache)) is not None:
            return kept
        pixels = np.stack([self[i]["class_pixels"] for i in range(len(self))])
        if cache is not None:
            with contextlib.suppress(OSError):  # In a read-only data_dir they are counted again next time.
                temporary = cache.parent / f"{cache.name}.{os.getpid()}"
                with temporary.open("wb") as file:
                    np.save(file, pixels)
                temporary.replace(cache)
        return pixels

    def _kept(self, cache: epath.Path) -> np.ndarray | None:
        """The counts of a file beside the data; None if it is damaged or of other data."""
        try:
            found = np.asarray(np.load(io.BytesIO(files.read_bytes(cache)), allow_pickle=False))
        except (UserError, ValueError, EOFError, OSError, MemoryError):
            found = np.zeros(())
        whole = found.dtype.kind in "iu" and found.ndim == 2
        if whole and len(found) == self._length and found.min(initial=0) >= 0:
            return found
        print(f"{cache} is damaged or of other data: the pixels are counted again", flush=True)
        return None

    @functools.cached_property
    def _builder(self) -> Any:
        return open_builder(self.path)

    @property
    def _features(self) -> Mapping[str, Any]:
        return self._builder.info.features

    @functools.cached_property
    def _texts(self) -> frozenset[str]:
        return frozenset(key for key, feature in self._features.items() if isinstance(feature, tfds.features.Text))

    @functools.cached_property
    def _reader(self) -> Sequence[Mapping[str, Any]]:
        encoded = {
            key: tfds.decode.SkipDecoding()
            for key, feature in self._features.items()
            if isinstance(feature, tfds.features.Image)
        }
        with self._damage_explained():
            return self._builder.as_data_source(split=self.split, decoders=encoded)

    @contextlib.contextmanager
    def _damage_explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the prepared files of {self.name} in {self.path} are damaged ({first_line(error)}): "
                "delete the folder to prepare them again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_builder", "_texts", "_reader", "_classes")
        return {key: value for key, value in self.__dict__.items() if key not in opened}
