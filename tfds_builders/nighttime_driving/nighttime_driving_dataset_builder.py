# SPDX-License-Identifier: Apache-2.0
"""Nighttime Driving: 50 coarsely labeled test images, original or corrected labels."""

import pathlib

import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.data.imagefiles import BrokenFile, read_indexed
from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles

EXPECTED = 50
# The authors of CIConv corrected the labelIds and colors of 14 files but left the old labelTrainIds beside them.
SUFFIXES = {"original": ("labelTrainIds", "train_ids"), "corrected": ("labelIds", "label_ids")}

LAYOUT = layouts.Layout(
    title="Nighttime Driving",
    page="https://people.ee.ethz.ch/~daid/NightDriving/",
    folders=("NighttimeDrivingTest", "nighttime_driving", "NighttimeDriving"),
    markers=("leftImg8bit/test/night", "gtCoarse_daytime_trainvaltest/test/night"),
    archives={"NighttimeDrivingTest.zip": "leftImg8bit/test/night"},
)


class Builder(builder.SegmentationBuilder):
    """TFDS builder of Nighttime Driving."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [
        builder.Config(
            name="original",
            select="original",
            description="Labels of 2018, read from labelTrainIds.",
        ),
        builder.Config(
            name="corrected",
            select="corrected",
            description="Labels corrected in 2019, read from labelIds.",
        ),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        version = self.builder_config.select
        suffix, encoding = SUFFIXES[version]
        photos = layouts.by_stem(tree.glob("leftImg8bit/test/night/*_leftImg8bit.png"), "_leftImg8bit")
        truth = {kind: _truth(tree, kind) for kind, _ in SUFFIXES.values()}
        both, lonely = layouts.match(photos, truth[suffix], f"gtCoarse_{suffix}")
        scan = Scan({}, {"test": EXPECTED}, f"{version} (gtCoarse {suffix})", lonely)
        for stem in both:
            sequence, frame = layouts.parse_frame(stem)
            record = ExampleFiles(
                stem,
                str(photos[stem]),
                stem,
                str(truth[suffix][stem]),
                encoding,
                sequence=sequence,
                frame=frame,
                condition="night",
            )
            scan.splits.setdefault("test", []).append(record)
        differing = [stem for stem in both if _differ(truth["labelIds"].get(stem), truth["labelTrainIds"].get(stem))]
        if differing:
            scan.notes.append(
                f"labelIds and labelTrainIds disagree in {len(differing)} files: this is the corrected package"
            )
        elif version == "corrected":
            scan.notes.append(
                "labelIds agree with labelTrainIds wherever both exist: these are not the corrected labels"
            )
        return scan


def _truth(tree: layouts.Tree, suffix: str) -> dict[str, pathlib.Path]:
    pattern = f"gtCoarse_daytime_trainvaltest/test/night/*_gtCoarse_{suffix}.png"
    return layouts.by_stem(tree.glob(pattern), f"_gtCoarse_{suffix}")


def _differ(label_ids: pathlib.Path | None, train_ids: pathlib.Path | None) -> bool:
    if label_ids is None or train_ids is None:
        return False
    try:
        mapped = CITYSCAPES.from_ids[read_indexed(str(label_ids))]
        return not np.array_equal(mapped, read_indexed(str(train_ids)))
    except BrokenFile:
        return False  # the record itself will report it
