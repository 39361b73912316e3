# SPDX-License-Identifier: Apache-2.0
"""Base of the TFDS builders: one feature schema, and one way from files to records.

A builder says what its files look like (``LAYOUT``), which configs it has, and, in `SegmentationBuilder.scan`, which
files belong to which record. The base finds and unpacks the data, converts records on all cores, counts what is broken
and stores an integrity report in the ``metadata.json`` of the data set. TensorFlow is never needed.

The work is done in new processes (`nightjax.core.parallel`), so a script that prepares data must guard its entry point
with ``if __name__ == "__main__":``.
"""

import dataclasses
import errno
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import Absent, UserError
from nightjax.core.parallel import parallel_map
from nightjax.prepare import integrity, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles, Outcome, Recipe, encode_record

CONDITIONS = ("day", "twilight", "night", "fog", "rain", "snow")
"""Values of the feature ``condition``; an unknown condition is stored as -1."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
    """One form of a data set.

    Attributes:
        labeled: whether examples have ``label`` and ``class_pixels``.
        paired: whether examples have ``reference`` and ``reference_id``.
        invalid: whether examples have the mask ``invalid``.
        select: the part or version of the data set, as the builder names it.
        recipe: size, format and what to do with labels of another size.
    """

    labeled: bool = True
    paired: bool = False
    invalid: bool = False
    select: str = ""
    recipe: Recipe = Recipe()


def prepared(config: Config, name: str, **changes: Any) -> Config:
    """The same data at half size and as JPEG, which is much cheaper to read."""
    recipe = dataclasses.replace(config.recipe, divide_by=2, image_format="jpeg")
    description = f"{config.description} Half size, images as JPEG of quality 95."
    return dataclasses.replace(config, name=name, recipe=recipe, description=description, **changes)


def features(
    *,
    labeled: bool,
    paired: bool = False,
    invalid: bool = False,
    file_label: bool = False,
    classes: ClassSet = CITYSCAPES,
) -> tfds.features.FeaturesDict:
    """The feature schema of all builders; images are stored as encoded bytes."""
    image = functools.partial(tfds.features.Image, shape=(None, None, 3), dtype=np.uint8)
    mask = functools.partial(tfds.features.Image, shape=(None, None, 1), dtype=np.uint8, encoding_format="png")
    schema: dict[str, Any] = {
        "image": image(doc="RGB"),
        "image_id": tfds.features.Text(doc="stem of the image file"),
        "sequence": tfds.features.Text(doc="drive the frame belongs to"),
        "frame": tfds.features.Scalar(np.int32, doc="number in the drive, -1 if unknown"),
        "condition": tfds.features.ClassLabel(names=CONDITIONS),
        # Raw bytes, because TFDS stores a float64 feature in float32, which moves a latitude by up to 0.4 m.
        "gps": tfds.features.Tensor(
            shape=(2,),
            dtype=np.float64,
            encoding="bytes",
            doc="latitude, longitude in degrees, or nan",
        ),
    }
    if labeled:
        schema["label"] = mask(doc=f"train ids of the class set {classes.name!r}, 255 = ignore")
        schema["class_pixels"] = tfds.features.Tensor(shape=(len(classes),), dtype=np.int32, doc="pixels of each class")
    if file_label:
        schema["file_label"] = mask(doc="the label's values as they are in the file")
    if paired:
        schema["reference"] = image(doc="RGB reference view, coarsely aligned")
        schema["reference_id"] = tfds.features.Text(doc="stem of the reference file")
    if invalid:
        schema["invalid"] = mask(doc="1 where the label could not be seen in the image alone")
    return tfds.features.FeaturesDict(schema)


with registered.skip_registration():

    class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder):
        """Writes ArrayRecord files unless another format is asked for: TFDS's own default needs TensorFlow."""

        def __init__(self, *, file_format: str | tfds.core.FileFormat | None = None, **kwargs: Any):
            super().__init__(file_format=file_format, **kwargs)
            if file_format is None and not self.info.initialized:  # What is prepared has its format already.
                self.info.set_file_format("array_record", override=True)

        def download_and_prepare(self, **kwargs: Any) -> None:
            """As TFDS's, but a disk without any room is the system's own error, with the folder.

            Raises:
                OSError: the disk takes nothing.
            """
            try:
                super().download_and_prepare(**kwargs)
            except OSError as error:
                if not str(error).startswith("Not enough disk space"):
                    raise
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.data_dir)) from error

        def _log_download_bytes(self) -> None:
            """Instead of TFDS's line, since nothing is downloaded."""
            print(f"preparing {self.info.full_name} in {self.data_dir}", flush=True)

        def _log_download_done(self) -> None:
            """The progress bars have said it."""

    class SegmentationBuilder(ArrayRecordBuilder):
        """Base of the builders. A subclass, called ``Builder``, has ``LAYOUT``, ``BUILDER_CONFIGS`` and `scan`.

        Records are sorted by key, so index i of a split is the same frame on every machine.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}
        LAYOUT: layouts.Layout

        def __init_subclass__(cls, **kwargs: Any):
            if "LAYOUT" in vars(cls):
                cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.LAYOUT.instructions
            super().__init_subclass__(**kwargs)

        @property
        def own_config(self) -> Config:
            """The config, of the class that all builders here have."""
            return cast(Config, self.builder_config)

        @property
        def report(self) -> dict[str, Any]:
            """What the prepared data says of itself: TFDS's metadata."""
            return cast(dict[str, Any], self.info.metadata)

        def scan(self, tree: layouts.Tree) -> Scan:
            """Lists the records of this config without opening the images."""
            raise NotImplementedError

        def find(self, manual_dir: str | os.PathLike, extract_dir: str | os.PathLike) -> Scan:
            """Finds the data below ``manual_dir`` and scans it.

            Raises:
                Absent: there is nothing usable, or nothing for this config.
            """
            tree = layouts.find_tree(self.LAYOUT, pathlib.Path(manual_dir), pathlib.Path(extract_dir))
            scan = self.scan(tree)
            scan.splits = {name: sorted(records, key=_key) for name, records in scan.splits.items() if records}
            if not scan.splits:
                found = "; ".join(scan.notes[:3] + scan.unmatched[:3]) or "no file fits the layout"
                raise Absent(
                    f"{self.LAYOUT.title}: nothing for config {self.own_config.name} in "
                    f"{manual_dir} ({found}); the layout is in the builder's README; "
                    f"download: {self.LAYOUT.page}"
                )
            return scan

        def encoder(self) -> Callable[[ExampleFiles], Outcome]:
            """The picklable function that worker processes turn files into examples with."""
            return functools.partial(encode_record, recipe=self.own_config.recipe)

        def _info(self) -> tfds.core.DatasetInfo:
            config = self.own_config
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{self.LAYOUT.title}: {config.description}",
                features=features(
                    labeled=config.labeled,
                    paired=config.paired,
                    invalid=config.invalid,
                    file_label=config.recipe.keep_file_values,
                ),
                homepage=self.LAYOUT.page,
                metadata=tfds.core.MetadataDict(),
                disable_shuffling=True,
            )

        def _download_and_prepare(
            self,
            dl_manager: tfds.download.DownloadManager,
            download_config: tfds.download.DownloadConfig,
        ) -> None:
            """Does what TFDS does; with a Beam runner or Beam options, Beam does the work."""
            self._on_beam = bool(download_config.beam_runner or download_config.beam_options)
            super()._download_and_prepare(dl_manager, download_config)
            if self._on_beam:
                self._report_beam()

        def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
            try:
                manual_dir = dl_manager.manual_dir
            except AssertionError as error:
                raise Absent(
                    f"{self.LAYOUT.title}: the folder for manual downloads is missing or "
                    f"empty; {self.LAYOUT.instructions}"
                ) from error
            scan = self.find(manual_dir, pathlib.Path(dl_manager.download_dir) / "extracted")
            self.report.update(
                config=self.own_config.name,
                manual_dir=os.path.realpath(manual_dir),
                label_version=scan.label_version,
                splits={},
                missing_splits=scan.missing_splits,
                unmatched=scan.unmatched,
                doubtful=scan.doubtful,
                notes=scan.notes,
            )
            self._scan = scan
            if self._on_beam:
                return {split: self._beam_examples(records) for split, records in scan.splits.items()}
            return {
                split: self._generate_examples(split, records, scan.expected.get(split))
                for split, records in scan.splits.items()
            }

        def _generate_examples(
            self, split: str, records: Sequence[ExampleFiles], expected: int | None
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            report = integrity.SplitReport(expected)
            for outcome in parallel_map(self.encoder(), records, desc=f"{self.name} {split}"):
                report.add(outcome)
                if outcome.example is not None:
                    yield outcome.key, outcome.example
            self.report["splits"][split] = report.as_json()
            if not report.images:
                name, fault = next(iter(report.broken.items()))
                raise UserError(
                    f"{self.LAYOUT.title}: no usable record among {len(records)} of {split}; {name}: {fault}"
                )

        def _beam_examples(self, records: Sequence[ExampleFiles]) -> Any:
            """The same examples as a Beam transform, which needs integer keys to keep an order."""
            beam = tfds.core.lazy_imports.apache_beam
            numbered = beam.Create(list(enumerate(records))) | beam.Reshuffle()
            return numbered | beam.FlatMap(functools.partial(_numbered_example, self.encoder()))

        def _report_beam(self) -> None:
            """Reports counts only, all that Beam's workers give; `nightjax.prepare.check` names what is missing."""
            for split, records in self._scan.splits.items():
                report = integrity.SplitReport(self._scan.expected.get(split))
                report.images = self.info.splits[split].num_examples
                report.labels = report.images * self.own_config.labeled
                report.left_out = len(records) - report.images
                self.report["splits"][split] = report.as_json()
                self.report["notes"].append(
                    f"{split}: prepared by Beam, {report.left_out} of {len(records)} records left out"
                )

        def _post_download_and_prepare_hook(self) -> None:
            print(f"{self.info.full_name}")
            print("\n".join(f"  {line}" for line in integrity.lines(self.report)))


def _key(record: ExampleFiles) -> str:
    return record.key


def _numbered_example(
    encode: Callable[[ExampleFiles], Outcome], item: tuple[int, ExampleFiles]
) -> Iterator[tuple[int, Any]]:
    index, record = item
    example = encode(record).example
    if example is not None:
        yield index, example
