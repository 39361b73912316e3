# SPDX-License-Identifier: Apache-2.0
"""Pairs of labeled nights with the days that a translator makes of their labels, as a plain folder."""

import pathlib
from collections.abc import Callable

import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.progress import Progress
from nightjax.data import splits, transforms
from nightjax.data.imagefiles import encode_png
from nightjax.data.sources import Source

Translate = Callable[[np.ndarray], np.ndarray]
SCORED = ("val", "test")
"""Beginnings of the names of splits whose labels are for scoring."""


def check_split(split: str) -> None:
    """Raises UserError for a split whose labels are for scoring."""
    if any(name.startswith(SCORED) for name in splits.names(split)):
        raise UserError(f"--split={split}: its labels are for scoring; make pairs of training labels only")


def make_pairs(source: Source, translate: Translate, output: pathlib.Path) -> None:
    """Writes ``images/train/<name>.png`` and ``references/train/<name>.png`` for every record.

    Args:
        source: records with image and label.
        translate: uint8 [1, H, W] labels to float32 [1, H, W, 3] in [0, 1].
        output: folder; pairs that it holds are left alone.
    """
    for i in Progress(range(len(source)), unit="pair"):
        record = source[i]
        night, day = (output / part / "train" / f"{record['image_id']}.png" for part in ("images", "references"))
        if night.exists():
            continue
        example = transforms.decode(record, ("image", "label"), len(source.classes))
        translated = np.asarray(translate(example["label"][None]), np.float32)[0]
        _write(day, np.round(255 * np.clip(translated, 0, 1)).astype(np.uint8))
        _write(night, example["image"])  # Last, since it says that the pair is complete.


def _write(path: pathlib.Path, image: np.ndarray) -> None:
    """The whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(encode_png(image))
    draft.replace(path)
