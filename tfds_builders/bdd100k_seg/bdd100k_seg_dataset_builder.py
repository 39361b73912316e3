# SPDX-License-Identifier: Apache-2.0
"""BDD100K semantic segmentation: 10K day and night photos with 19-class masks."""

import json
import pathlib
from typing import Any

from nightjax.core.errors import Absent, UserError
from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles

SPLITS = {"train": "train", "validation": "val", "test": "test"}
EXPECTED = {"train": 7000, "validation": 1000, "test": 2000}

LAYOUT = layouts.Layout(
    title="BDD100K semantic segmentation",
    page="http://bdd-data.berkeley.edu/",
    folders=("bdd100k", "bdd100k_seg", "bdd100k_night", "bdd"),
    markers=("images/10k/*", "labels/sem_seg/*", "seg/images/*", "seg/labels/*"),
    archives={
        "bdd100k_images_10k.zip": "images/10k/train",
        "10k_images_train.zip": "images/10k/train",
        "10k_images_val.zip": "images/10k/val",
        "10k_images_test.zip": "images/10k/test",
        "bdd100k_sem_seg_labels_trainval.zip": "labels/sem_seg/masks",
        "bdd100k_seg.zip": "seg/images",
        "bdd100k_labels_release.zip": "labels/bdd100k_labels_images_*",
        "bdd100k_det_20_labels_trainval.zip": "labels/det_20",
    },
)

TIMES = {"daytime": "day", "night": "night"}
"""The attribute ``timeofday`` to our condition; "dawn/dusk" and "undefined" are neither."""

ATTRIBUTES = (
    "labels/bdd100k_labels_images_*.json",
    "labels/det_20/det_*.json",
    "labels/sem_seg/polygons/sem_seg_*.json",
    "bdd100k_labels_images_*.json",
)
"""Files that may have the attributes of images; all that are there are read."""


def files(tree: layouts.Tree, split: str) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Photos and masks of a split by id, in the layout of 2021 or the older one.

    Masks hold train ids in both. Where there are only color maps, their palette *indices* are the train ids.
    """
    photos = tree.glob(f"images/10k/{split}/*.jpg", f"seg/images/{split}/*.jpg")
    masks = tree.glob(f"labels/sem_seg/masks/{split}/*.png", f"seg/labels/{split}/*_train_id.png")
    masks = masks or tree.glob(f"labels/sem_seg/colormaps/{split}/*.png")
    return layouts.by_stem(photos), layouts.by_stem(masks, "_train_id")


def record(stem: str, photo: pathlib.Path, mask: pathlib.Path | None, condition: str = "") -> ExampleFiles:
    """One photo; BDD100K's names say nothing about drive or time of day."""
    return ExampleFiles(stem, str(photo), stem, label=mask and str(mask), condition=condition)


def times(tree: layouts.Tree) -> dict[str, str]:
    """Id of an image to ``"day"`` or ``"night"``, of those whose attribute ``timeofday`` says so.

    Raises:
        Absent: there is no file of attributes.
        UserError: one is damaged.
    """
    files = tree.glob(*ATTRIBUTES)
    if not files:
        raise Absent(
            f"{LAYOUT.title}: nothing says which images are nights: put bdd100k_labels_release.zip (its "
            "labels/bdd100k_labels_images_train.json and _val.json) beside the images"
        )
    found = {}
    for path in files.values():
        try:
            frames: list[dict[str, Any]] = json.loads(path.read_bytes())
            named = {pathlib.PurePath(frame["name"]).stem: frame.get("attributes") or {} for frame in frames}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): download it again") from error
        found |= {stem: TIMES[time] for stem, own in named.items() if (time := own.get("timeofday")) in TIMES}
    return found


class Builder(builder.SegmentationBuilder):
    """TFDS builder of BDD100K semantic segmentation."""

    LAYOUT = LAYOUT
    _FULL = builder.Config(name="full", description="Labeled train and validation, 1280x720.")
    BUILDER_CONFIGS = [
        _FULL,
        builder.prepared(_FULL, "prepared"),
        builder.Config(name="day", select="day", description="Labeled days, by the attribute timeofday."),
        builder.Config(name="night", select="night", description="Labeled nights, by the attribute timeofday."),
        builder.Config(name="test", description="Photos without public labels.", labeled=False),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        labeled = self.builder_config.labeled
        names = ("train", "validation") if labeled else ("test",)
        wanted = self.builder_config.select
        expected = {} if wanted else {name: EXPECTED[name] for name in names}
        scan = Scan({}, expected, "BDD100K masks" if labeled else "none")
        known = times(tree) if wanted else {}
        for name in names:
            photos, masks = files(tree, SPLITS[name])
            both, lonely = layouts.match(photos, masks if labeled else photos, "label")
            if wanted:
                scan.notes.append(f"{name}: {sum(stem not in known for stem in both)} images are no day and no night")
                both = [stem for stem in both if known.get(stem) == wanted]
            scan.splits[name] = [record(stem, photos[stem], masks.get(stem), wanted) for stem in both]
            scan.unmatched += lonely
        return scan
