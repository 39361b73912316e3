# SPDX-License-Identifier: Apache-2.0
"""ACDC: fog, night, rain and snow, with labels, invalid masks and references."""

import pathlib

from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles

CONDITIONS = ("night", "fog", "rain", "snow")
SPLITS = {"train": "train", "validation": "val", "test": "test"}
EXPECTED = {"train": 400, "validation": 100, "test": 500}
NIGHT_VALIDATION = 106

LAYOUT = layouts.Layout(
    title="ACDC",
    page="https://acdc.vision.ee.ethz.ch/download",
    folders=("ACDC", "rgb_anon_trainvaltest", "gt_trainval"),
    markers=tuple(
        f"{kind}/{part}" for kind in ("rgb_anon", "gt") for part in (*CONDITIONS, "train/*.png", "val/*.png")
    ),
    archives={"rgb_anon_trainvaltest.zip": "rgb_anon/*", "gt_trainval.zip": "gt/*"},
)


def _condition_configs() -> list[builder.Config]:
    configs = []
    for condition in CONDITIONS:
        labeled = builder.Config(
            name=condition,
            select=condition,
            paired=True,
            invalid=True,
            description=f"Labeled train and validation in {condition}, with references and masks.",
        )
        test = builder.Config(
            name=f"{condition}_test",
            select=condition,
            labeled=False,
            paired=True,
            description=f"Test in {condition} with references; only the server has the labels.",
        )
        configs += [labeled, builder.prepared(labeled, f"{condition}_prepared"), test]
    return configs


class Builder(builder.SegmentationBuilder):
    """TFDS builder of ACDC."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [
        *_condition_configs(),
        builder.Config(
            name="all",
            description="Labeled, every condition; reads flattened trees as well.",
        ),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        config = self.builder_config
        names = ("train", "validation") if config.labeled else ("test",)
        conditions = (config.select,) if config.select else CONDITIONS
        scan = Scan({}, {name: sum(_expected(name, c) for c in conditions) for name in names})
        scan.label_version = "ACDC gt_trainval" if config.labeled else "none"
        for name in names:
            for condition in conditions:
                self._add(scan, tree, name, f"{condition}/{SPLITS[name]}/*", condition)
            if not config.select and not scan.splits[name]:
                self._add(scan, tree, name, SPLITS[name], "")
                scan.notes.append(f"{name} is a flattened tree: conditions are unknown")
        if not scan.splits.get(names[0]) and tree.glob("rgb_anon/train/*.png") and config.select:
            scan.notes.append("this is a flattened tree, which has lost the conditions: use config all")
        return scan

    def _add(self, scan: Scan, tree: layouts.Tree, name: str, folder: str, condition: str) -> None:
        """Adds the records of one split in one condition."""
        config = self.builder_config
        photos = layouts.by_stem(tree.glob(f"rgb_anon/{folder}/*_rgb_anon.png"), "_rgb_anon")
        truth = layouts.by_stem(tree.glob(f"gt/{folder}/*_gt_*.png"))
        split = SPLITS[name]
        normal = tree.glob(f"rgb_anon/{folder.replace(split, split + '_ref')}/*_rgb_ref_anon.png")
        normal = layouts.by_stem(normal, "_rgb_ref_anon")
        records = scan.splits.setdefault(name, [])
        for stem, image in photos.items():
            label = truth.get(f"{stem}_gt_labelTrainIds") or truth.get(f"{stem}_gt_labelIds")
            invalid = truth.get(f"{stem}_gt_invIds") or truth.get(f"{stem}_gt_invGray")
            needed = {
                "label": (config.labeled, label),
                "invalid mask": (config.invalid, invalid),
                "reference": (config.paired, normal.get(stem)),
            }
            lacking = [role for role, (wanted, path) in needed.items() if wanted and path is None]
            if lacking:
                scan.unmatched.append(f"{condition}/{stem} has no {' and no '.join(lacking)}")
                continue
            paths = {role: path if wanted else None for role, (wanted, path) in needed.items()}
            records.append(
                _record(
                    stem,
                    condition,
                    image,
                    paths["label"],
                    paths["invalid mask"],
                    paths["reference"],
                )
            )
        partners = {stem.partition("_gt_")[0] for stem in truth} | normal.keys()
        scan.unmatched += [f"{condition}/{stem} has no image" for stem in sorted(partners - photos.keys())]


def _expected(split: str, condition: str) -> int:
    return NIGHT_VALIDATION if (split, condition) == ("validation", "night") else EXPECTED[split]


def _record(
    stem: str,
    condition: str,
    image: pathlib.Path,
    label: pathlib.Path | None,
    invalid: pathlib.Path | None,
    reference: pathlib.Path | None,
) -> ExampleFiles:
    sequence, frame = layouts.parse_frame(stem)
    return ExampleFiles(
        key=f"{condition}/{stem}",
        image=str(image),
        image_id=stem,
        label=label and str(label),
        label_encoding="label_ids" if label and label.stem.endswith("_labelIds") else "train_ids",
        reference=reference and str(reference),
        reference_id=f"{stem}_ref" if reference else "",
        invalid=invalid and str(invalid),
        sequence=sequence,
        frame=frame,
        condition=condition,
    )
