# SPDX-License-Identifier: Apache-2.0
"""Cityscapes (fine): train ids made from ``labelIds``, from the zips or from an unpacked tree."""

import re

from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles, Recipe

SPLITS = {"train": "train", "validation": "val", "test": "test"}
EXPECTED = {"train": 2975, "validation": 500, "test": 1525}

LAYOUT = layouts.Layout(
    title="Cityscapes",
    page="https://www.cityscapes-dataset.com/downloads/",
    folders=("cityscapes", "cityscapes_seg"),
    markers=("leftImg8bit/train", "leftImg8bit/val", "leftImg8bit/test/berlin", "gtFine"),
    archives={
        "leftImg8bit_trainvaltest.zip": "leftImg8bit/train",
        "gtFine_trainvaltest.zip": "gtFine/train",
    },
)


class Builder(builder.SegmentationBuilder):
    """TFDS builder of Cityscapes with train-id labels."""

    LAYOUT = LAYOUT
    _FULL = builder.Config(name="full", description="Labeled train and validation, 2048x1024.")
    BUILDER_CONFIGS = [
        _FULL,
        builder.Config(
            name="half",
            description="Labeled train and validation, 1024x512, lossless.",
            recipe=Recipe(divide_by=2),
        ),
        builder.prepared(_FULL, "prepared"),
        builder.Config(
            name="full_with_ids",
            description="As full, and the raw label ids in a feature of their own.",
            recipe=Recipe(keep_file_values=True),
        ),
        builder.Config(name="test", description="Photos whose labels only the server has.", labeled=False),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        labeled = self.builder_config.labeled
        names = ("train", "validation") if labeled else ("test",)
        scan = Scan({}, {name: EXPECTED[name] for name in names}, "gtFine labelIds" if labeled else "none")
        for name in names:
            photos = layouts.by_stem(tree.glob(f"leftImg8bit/{SPLITS[name]}/*/*_leftImg8bit.png"), "_leftImg8bit")
            truth = layouts.by_stem(tree.glob(f"gtFine/{SPLITS[name]}/*/*_gtFine_labelIds.png"), "_gtFine_labelIds")
            both, lonely = layouts.match(photos, truth if labeled else photos, "gtFine_labelIds")
            scan.splits[name] = [
                _record(stem, str(photos[stem]), str(truth[stem]) if labeled else None) for stem in both
            ]
            scan.unmatched += lonely
        return scan


def _record(stem: str, image: str, label: str | None) -> ExampleFiles:
    """Stems are ``<city>_<sequence>_<frame>``; the frame is 000019 in most cities, not in all."""
    parts = re.fullmatch(r"(.+_\d+)_(\d+)", stem)
    sequence, frame = (parts[1], int(parts[2])) if parts else ("", -1)
    return ExampleFiles(
        stem,
        image,
        stem,
        label=label,
        label_encoding="label_ids",
        sequence=sequence,
        frame=frame,
        condition="day",
    )
