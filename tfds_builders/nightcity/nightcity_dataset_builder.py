# SPDX-License-Identifier: Apache-2.0
"""NightCity with its label versions original, NightCity+ (new val) and NightCity-fine."""

import pathlib

from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles, Recipe

SPLITS = {"train": "train", "validation": "val"}
EXPECTED = {"train": 2998, "validation": 1299}
MOVED = "Dubai_0016"
"""In val in an early upload (2997 and 1300 images), in train in the corrected one."""

IMAGES = ("NightCity-images/images/{split}/*.png", "images/{split}/*.png", "img/{split}/*.png")
_ORIGINAL = ("NightCity-label/label/{split}/*.png", "label/{split}/*.png", "gt/{split}/*.png")
_PLUS_FOLDERS = (
    "NightCity+",
    "NightCity-plus",
    "NightCity_plus",
    "NightCityPlus",
    "nightcity_plus",
    "plus",
)
_FINE_FOLDERS = ("NightCity-fine", "NightCity_fine", "NightCityFine", "nightcity_fine", "fine")


def _below(folders: tuple[str, ...]) -> tuple[str, ...]:
    inner = ("{split}", "label/{split}", "labels/{split}", "gt/{split}")
    return tuple(f"{folder}/{part}/*.png" for folder in folders for part in inner)


# Where the labels of each version are; the first pattern that has files counts. NightCity+ has train from the original.
LABELS = {
    "original": {"train": _ORIGINAL, "validation": _ORIGINAL},
    "plus": {"train": _ORIGINAL, "validation": _below(_PLUS_FOLDERS)},
    "fine": {"train": _below(_FINE_FOLDERS), "validation": _below(_FINE_FOLDERS)},
}
# File suffix to encoding: the suffix of a file, not the version, says what it holds.
ENCODINGS = {"_labelTrainIds": "train_ids", "_trainIds": "train_ids", "_labelIds": "label_ids"}

LAYOUT = layouts.Layout(
    title="NightCity",
    page="https://dmcv.sjtu.edu.cn/people/phd/tanxin/NightCity/index.html",
    folders=("NightCity", "NightCity-images", "NightCity-label"),
    markers=(
        "NightCity-images/images/*",
        "NightCity-label/label/*",
        "images/train",
        "images/val",
        "img/train",
        "img/val",
    )
    + _PLUS_FOLDERS[:4]
    + _FINE_FOLDERS[:3]
    + ("label/train", "label/val"),
    archives={
        "NightCity-images.zip": "NightCity-images/images/*",
        "NightCity-label.zip": "NightCity-label/label/*",
        "NightCity+.zip": "NightCity+/*",
        "NightCity-fine.zip": "NightCity-fine/*",
    },
)


def _config(version: str, description: str) -> builder.Config:
    return builder.Config(
        name=version,
        select=version,
        recipe=Recipe(mismatch="resize_label"),
        description=description,
    )


class Builder(builder.SegmentationBuilder):
    """TFDS builder of NightCity."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [
        _config("original", "Original labels of train and validation, 1024x512."),
        _config("plus", "Original train, validation annotated anew by NightLab's authors."),
        _config("fine", "Train and validation annotated anew by DTP's authors."),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        version = self.builder_config.select
        scan = Scan({}, dict(EXPECTED), {"plus": "NightCity+"}.get(version, f"NightCity {version}"))
        for name, split in SPLITS.items():
            photos = layouts.by_stem(tree.glob(*(pattern.format(split=split) for pattern in IMAGES)))
            truth, strange = _labels(tree, LABELS[version][name], split)
            both, lonely = layouts.match(photos, truth, f"{version} label")
            scan.splits[name] = [_record(stem, photos[stem], *truth[stem]) for stem in both]
            scan.unmatched += lonely + strange
            if MOVED in photos:
                upload = "the corrected upload" if name == "train" else "the early upload (2997 + 1300)"
                scan.notes.append(f"{MOVED} is in {split}: {upload}")
        return scan


def _labels(
    tree: layouts.Tree, patterns: tuple[str, ...], split: str
) -> tuple[dict[str, tuple[pathlib.Path, str]], list[str]]:
    """Stem to path and encoding, and the files whose suffix is unknown."""
    for pattern in patterns:
        files = tree.glob(pattern.format(split=split))
        if files:
            break
    found, strange = {}, []
    for path in files.values():
        suffix = next((suffix for suffix in ENCODINGS if path.stem.endswith(suffix)), None)
        if suffix is None:
            strange.append(f"{split}/{path.name} has none of the suffixes {', '.join(ENCODINGS)}")
        else:
            found[path.stem.removesuffix(suffix)] = (path, ENCODINGS[suffix])
    return found, strange


def _record(stem: str, image: pathlib.Path, label: pathlib.Path, encoding: str) -> ExampleFiles:
    city, _, number = stem.rpartition("_")
    frame = int(number) if number.isdigit() else -1
    return ExampleFiles(stem, str(image), stem, str(label), encoding, sequence=city, frame=frame, condition="night")
