# SPDX-License-Identifier: Apache-2.0
"""Dark Zurich: drives by day, twilight and night, GPS-nearest pairs, labeled validation."""

import csv
import itertools
import pathlib
from collections.abc import Iterable, Iterator

from nightjax.prepare import alignment, builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import NO_GPS, ExampleFiles

EXPECTED = {"day": 3041, "twilight": 2920, "night": 2416, "validation": 50, "test": 151}
PAIR_LIST = "zurich_dn_pair_train.csv"
"""The table that several published systems carry instead of the archive's ``corresp``."""

LAYOUT = layouts.Layout(
    title="Dark Zurich",
    page="https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/",
    folders=("Dark_Zurich", "DarkZurich"),
    markers=("rgb_anon/train", "rgb_anon/val", "rgb_anon/test"),
    archives={
        "Dark_Zurich_train_anon.zip": "rgb_anon/train",
        "Dark_Zurich_val_anon.zip": "rgb_anon/val",
        "Dark_Zurich_test_anon_withoutGt.zip": "rgb_anon/test",
    },
)


def _unpaired(condition: str) -> builder.Config:
    description = f"Unlabeled train images by {condition}, 1920x1080."
    return builder.Config(name=condition, select=condition, labeled=False, description=description)


class Builder(builder.SegmentationBuilder):
    """TFDS builder of Dark Zurich."""

    LAYOUT = LAYOUT
    _PAIRS = builder.Config(
        name="pairs",
        select="night",
        labeled=False,
        paired=True,
        description="Train: night images, each with its GPS-nearest day image.",
    )
    BUILDER_CONFIGS = [
        _PAIRS,
        builder.prepared(_PAIRS, "prepared"),
        builder.Config(
            name="twilight_pairs",
            select="twilight",
            labeled=False,
            paired=True,
            description="Train: twilight images, each with its GPS-nearest day image.",
        ),
        _unpaired("night"),
        _unpaired("twilight"),
        _unpaired("day"),
        builder.Config(
            name="val",
            paired=True,
            invalid=True,
            description="Labeled validation with day references.",
        ),
        builder.Config(
            name="test",
            labeled=False,
            paired=True,
            description="Test, whose labels only the server has.",
        ),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        config = self.builder_config
        if config.name == "val":
            return _scan_val(tree)
        if config.name == "test":
            return _scan_test(tree)
        photos = _photos(tree, "train", config.select)
        gps = _gps(tree, "train", config.select)
        scan = Scan({}, {"train": EXPECTED[config.select]})
        if not config.paired:
            scan.splits["train"] = [_record(stem, path, config.select, gps) for stem, path in photos.items()]
            return scan
        days, day_gps = _photos(tree, "train", "day"), _gps(tree, "train", "day")
        table, version = pair_table(tree, config.select, scan.notes)
        scan.label_version = f"none; pairs from {version}"
        records = []
        for stem, path in photos.items():
            day = table.get(stem)
            if day is None or day not in days:
                reason = "is in no pair list" if day is None else f"its day image {day} is missing"
                scan.unmatched.append(f"{stem}: {reason}")
                continue
            records.append(_record(stem, path, config.select, gps, reference=days[day]))
            apart = alignment.meters(gps.get(stem, NO_GPS), day_gps.get(day, NO_GPS))
            if apart > alignment.MAX_METERS:
                scan.doubtful.append(f"{stem} was taken {apart:.0f} m from its day image")
        scan.unmatched += [f"{stem} is in the pair list but not here" for stem in sorted(table.keys() - photos.keys())]
        scan.splits["train"] = records
        if records:
            shared = len(records) - len({record.reference_id for record in records})
            scan.notes.append(f"{shared} of {len(records)} pairs use a day image that an earlier pair uses too")
        return scan


def _scan_val(tree: layouts.Tree) -> Scan:
    scan = Scan({"validation": []}, {"validation": EXPECTED["validation"]}, "Dark Zurich val")
    days = {path.name: path for path in tree.glob("rgb_anon/val_ref/day/*/*_ref_rgb_anon.png").values()}
    truth = {path.name: path for path in tree.glob("gt/val/night/*/*_gt_*.png").values()}
    gps = _gps(tree, "val", "night")
    used = set()
    for stem, path in _photos(tree, "val", "night").items():
        name = path.name.removesuffix("_rgb_anon.png")
        label = truth.get(f"{name}_gt_labelTrainIds.png") or truth.get(f"{name}_gt_labelIds.png")
        invalid = truth.get(f"{name}_gt_invIds.png") or truth.get(f"{name}_gt_invGray.png")
        day = days.get(f"{name}_ref_rgb_anon.png")
        lacking = [
            role for role, file in (("label", label), ("invalid mask", invalid), ("reference", day)) if file is None
        ]
        used.add(name)
        if lacking:
            scan.unmatched.append(f"{stem} has no {' and no '.join(lacking)}")
        else:
            scan.splits["validation"].append(_record(stem, path, "night", gps, day, label, invalid))
    scan.unmatched += sorted({f"{name} has no image" for name in truth if name.partition("_gt_")[0] not in used})
    return scan


def _scan_test(tree: layouts.Tree) -> Scan:
    """Matches the test references by prefix: they have further tokens after the stem of the night image."""
    scan = Scan({"test": []}, {"test": EXPECTED["test"]})
    days = {
        layouts.parse_frame(path.name): path for path in tree.glob("rgb_anon/test_ref/day/*/*_rgb_anon.png").values()
    }
    gps = _gps(tree, "test", "night")
    for stem, path in _photos(tree, "test", "night").items():
        day = days.get(layouts.parse_frame(path.name))
        if day is None:
            scan.unmatched.append(f"{stem} has no reference")
        else:
            scan.splits["test"].append(_record(stem, path, "night", gps, reference=day))
    return scan


def _photos(tree: layouts.Tree, split: str, condition: str) -> dict[str, pathlib.Path]:
    """Relative stem, as the archive's tables have it (``train/night/GOPR0351/GOPR0351_frame_000001``), to path."""
    found = tree.glob(f"rgb_anon/{split}/{condition}/*/*_rgb_anon.png")
    return {name.removeprefix("rgb_anon/").removesuffix("_rgb_anon.png"): path for name, path in found.items()}


def pair_table(tree: layouts.Tree, condition: str, notes: list[str]) -> tuple[dict[str, str], str]:
    """Dark stem to day stem, and where the table comes from; what is odd goes into ``notes``."""
    files = tree.glob(f"corresp/train/{condition}/*/*_ref_day.csv")
    version = "corresp"
    if not files and condition == "night":
        files, version = tree.glob(PAIR_LIST, f"*/{PAIR_LIST}"), PAIR_LIST
    if not files:
        notes.append(
            f"no corresp/train/{condition}/*/*_ref_day.csv" + (f" and no {PAIR_LIST}" * (condition == "night"))
        )
    table: dict[str, str] = {}
    for dark, day in (row[:2] for row in _rows(files.values()) if len(row) >= 2):
        if table.setdefault(dark, day) != day:
            notes.append(f"{dark} is paired with {table[dark]} and with {day}; the first one is used")
    return table, version


def _gps(tree: layouts.Tree, split: str, condition: str) -> dict[str, tuple[float, float]]:
    """Relative stem to latitude and longitude where the archive has them."""
    positions = {}
    for row in _rows(tree.glob(f"gps/{split}/{condition}/*/*.csv").values()):
        try:
            positions[row[0].removesuffix("_rgb_anon.png")] = (float(row[1]), float(row[2]))
        except (IndexError, ValueError):
            continue  # a header or an empty row
    return positions


def _rows(files: Iterable[pathlib.Path]) -> Iterator[list[str]]:
    """Stripped cells of csv files, one after another."""
    texts = itertools.chain.from_iterable(path.read_text().splitlines() for path in files)
    return ([cell.strip() for cell in row] for row in csv.reader(texts))


def _record(
    stem: str,
    image: pathlib.Path,
    condition: str,
    gps: dict[str, tuple[float, float]],
    reference: pathlib.Path | None = None,
    label: pathlib.Path | None = None,
    invalid: pathlib.Path | None = None,
) -> ExampleFiles:
    sequence, frame = layouts.parse_frame(image.name)
    return ExampleFiles(
        key=stem,
        image=str(image),
        image_id=image.name.removesuffix("_rgb_anon.png"),
        label=label and str(label),
        label_encoding="label_ids" if label and label.name.endswith("_labelIds.png") else "train_ids",
        reference=reference and str(reference),
        reference_id=reference.name.removesuffix("_rgb_anon.png") if reference else "",
        invalid=invalid and str(invalid),
        sequence=sequence,
        frame=frame,
        condition=condition,
        gps=gps.get(stem, NO_GPS),
    )
