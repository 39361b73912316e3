# SPDX-License-Identifier: Apache-2.0
"""From a record to an example in a training or evaluation batch."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import grain
import numpy as np

from nightjax.core.config import suggestion
from nightjax.core.errors import UserError
from nightjax.data import transforms
from nightjax.data.sampling import RareClass, SampledRecord
from nightjax.data.sources import Source

Arrays = dict[str, np.ndarray]

LARGEST_SIDE = 65_536
"""Pixels; no image is longer."""

AUTO_SIZE = (0, 0)
"""In the place of a size: chosen from the sizes of the images when a run starts (`nightjax.run.own_data`)."""


@dataclasses.dataclass(frozen=True)
class StreamSpec:
    """What a method wants to read for one domain.

    Attributes:
        name: key of the domain in the batch, such as ``"source"`` or ``"target"``; streams of different names are
            shuffled independently.
        dataset: its name, such as nightstreet/std or folder:PATH; see `nightjax.data.sources.open_source`.
        split: which part of the data set, such as train or train[:90%].
        crop: (height, width) of the training crop.
        fields: what is read of each example, some of `transforms.FEATURES`, "image" first.
        resize: (height, width) to which images are resized when they are loaded; None keeps the stored size, and
            `AUTO_SIZE` is chosen when a run starts.
        flip: mirror left to right with probability one half.
        scale_range: (smallest, largest) factor by which every example is resized after ``resize``, or None.
        crop_resize: (height, width) to which the crop is resized, or None.
        bicubic, antialias: how images are resized each time, bilinear without either; see `transforms.resize`.
        max_class_share: a crop is drawn again while one class covers this share of its labeled pixels or more (only
            with a label); 1 switches the rule off.
        rare_class: rare-class sampling, or None for a uniform shuffle.
        misaligned: moves the reference view to the left or right by this share of its width, below 1. It is for
            experiments about how well pairs must be aligned; 0 leaves pairs as they are.
    """

    name: str
    dataset: str
    split: str
    crop: tuple[int, int]
    fields: tuple[str, ...] = ("image", "label")
    resize: tuple[int, int] | None = None
    flip: bool = True
    scale_range: tuple[float, float] | None = None
    crop_resize: tuple[int, int] | None = None
    bicubic: bool = False
    antialias: bool = False
    max_class_share: float = 0.75
    rare_class: RareClass | None = None
    misaligned: float = 0.0

    def __post_init__(self):
        for field in self.fields:
            if field not in transforms.FEATURES:
                known = suggestion(field, transforms.FEATURES)
                raise UserError(f"stream {self.name!r}: unknown field {field!r}{known}")
        if not self.fields or self.fields[0] != "image":
            raise UserError(f"stream {self.name!r}: the first field must be 'image', got {list(self.fields)}")
        for key in ("crop", "resize", "crop_resize"):
            size = getattr(self, key)
            if key == "resize" and size is not None and tuple(size) == AUTO_SIZE:
                continue
            if (size is not None or key == "crop") and not _is_size(size):
                self._refuse(key, "(height, width) in whole pixels, from 1 to 65536")
        if self.scale_range is not None and not _is_range(self.scale_range):
            self._refuse("scale_range", "(smallest, largest) factor, both above 0")
        if not 0 < self.max_class_share <= 1:
            self._refuse("max_class_share", "above 0 and at most 1, which switches the rule off")
        if not 0 <= self.misaligned < 1:
            self._refuse("misaligned", "a share of the width, from 0 to below 1")
        if self.misaligned and "reference" not in self.fields:
            raise UserError(f"stream {self.name!r}: misaligned moves the field 'reference', which is not read")
        if self.rare_class is not None and "label" not in self.fields:
            raise UserError(f"stream {self.name!r}: rare-class sampling needs the field 'label'")

    def _refuse(self, key: str, wanted: str) -> NoReturn:
        raise UserError(f"stream {self.name!r}: {key}={getattr(self, key)!r} must be {wanted}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the examples."""
        return self.crop_resize or self.crop


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(v, (int, np.integer)) and 1 <= v <= LARGEST_SIDE for v in value)
    )


def _is_range(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and 0 < value[0] <= value[1] < math.inf


@dataclasses.dataclass(frozen=True)
class LoadExample(grain.transforms.RandomMap):
    """Turns a `SampledRecord` into an augmented example: decode, resize, misalign, scale, crop, resize again, flip."""

    source: Source
    spec: StreamSpec

    def random_map(self, sampled: SampledRecord, rng: np.random.Generator) -> Arrays:
        spec = self.spec
        example = transforms.decode(self.source[sampled.index], spec.fields, len(self.source.classes))
        if spec.resize is not None:
            example = transforms.resize(example, spec.resize, bicubic=spec.bicubic, antialias=spec.antialias)
        if spec.misaligned:
            side = 1 if rng.random() < 0.5 else -1
            example = transforms.shift_reference(example, side * round(spec.misaligned * example["image"].shape[1]))
        example = self._crop(example, sampled.rare_class, rng)
        example = transforms.resize(example, spec.size, bicubic=spec.bicubic, antialias=spec.antialias)
        if spec.flip:
            example = transforms.random_flip(example, rng)
        example = {field: np.ascontiguousarray(value) for field, value in example.items()}
        return example | {"mask": np.float32(1), "index": np.int64(sampled.index)}

    def _crop(self, example: Arrays, rare_class: int, rng: np.random.Generator) -> Arrays:
        spec = self.spec
        accept = None
        if "label" in example and spec.max_class_share < 1:
            accept = functools.partial(transforms.has_mixed_classes, max_share=spec.max_class_share)
        wanted = 0.0
        if spec.rare_class is not None and rare_class >= 0:
            wanted = spec.rare_class.min_pixels * spec.rare_class.crop_ratio
        for _ in range(11 if rare_class >= 0 else 1):
            scaled = example
            if spec.scale_range is not None:
                how = {"bicubic": spec.bicubic, "antialias": spec.antialias}
                scaled = transforms.random_scale(example, spec.scale_range, rng, **how)
            cropped = transforms.random_crop(scaled, spec.crop, rng, accept=accept)
            if rare_class < 0 or np.count_nonzero(cropped["label"] == rare_class) > wanted:
                break
        return cropped


@dataclasses.dataclass(frozen=True)
class LoadEvalBatch(grain.transforms.Map):
    """Turns one image size and the positions of some records into one batch."""

    source: Source
    fields: tuple[str, ...]

    def map(self, planned: tuple[tuple[int, int], tuple[int, ...]]) -> Arrays:
        size, indices = planned
        # The blank example has the fields' dtypes and padding values; a process may hold nothing else.
        blank = transforms.pad(transforms.empty(self.fields), size)
        count = len(self.source.classes)
        examples = [
            transforms.resize(transforms.decode(self.source[index], self.fields, count), size) if index >= 0 else blank
            for index in indices
        ]
        batch = {field: np.stack([example[field] for example in examples]) for field in self.fields}
        index = np.array(indices, np.int64)
        return batch | {"mask": (index >= 0).astype(np.float32), "index": index}
