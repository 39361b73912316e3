"""NEXET 2017: 50,000 unlabelled dash-camera photos with a lighting tag."""

from __future__ import annotations

import csv
import pathlib

from nightjax.data import builder, layouts
from nightjax.data.integrity import Scan
from nightjax.data.records import Record

EXPECTED = 50_000
LIGHTING = {"Day": "day", "Twilight": "twilight", "Night": "night"}

SOURCE = layouts.Source(
    title="NEXET 2017",
    page="https://www.kaggle.com/datasets/solesensei/nexet-original",
    folders=("nexet", "nexet-original"),
    markers=("nexet_2017_1",),
    archives={"nexet-original.zip": "nexet_2017_1/*", "nexet.zip": "nexet_2017_1/*"},
)


def _config(name: str, description: str) -> builder.Config:
    return builder.Config(name=name, select=name, labelled=False, description=description)


_ALL = _config("all", "All photos; mostly 1280x720, not all.")


class Builder(builder.SegmentationBuilder):
    """TFDS builder of NEXET."""

    SOURCE = SOURCE
    BUILDER_CONFIGS = [
        _ALL,
        builder.prepared(_ALL, "prepared"),
        *(
            _config(name, f"Photos tagged {tag}; some tags are wrong.")
            for tag, name in LIGHTING.items()
        ),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        wanted = self.builder_config.select
        photos = {path.name: path for path in tree.glob("nexet_2017_1/*.jpg").values()}
        tags, cities = _read_tags(tree)
        scan = Scan(
            {"train": []},
            {"train": EXPECTED} if wanted == "all" else {},
            exhaustive=wanted == "all",
        )
        for name in sorted(photos.keys() | tags.keys()):
            condition = tags.get(name, "")
            if name not in photos:
                scan.unmatched.append(f"{name} is in train.csv but not here")
            elif name not in tags:
                scan.unmatched.append(f"{name} is not in train.csv")
            if name in photos and wanted in ("all", condition):
                path, stem = photos[name], pathlib.PurePath(name).stem
                record = Record(
                    stem, str(path), stem, condition=condition, sequence=cities.get(name, "")
                )
                scan.splits["train"].append(record)
        if not tags:
            scan.notes.append(
                "no train.csv with the columns image_filename and lighting: lighting is unknown"
            )
        return scan


def _read_tags(tree: layouts.Tree) -> tuple[dict[str, str], dict[str, str]]:
    """File name to condition, and to city; some copies have blanks after commas."""
    tags, cities = {}, {}
    for path in tree.glob("train.csv").values():
        rows = csv.DictReader(path.read_text().splitlines(), skipinitialspace=True)
        for row in rows:
            cells = {key.strip(): value.strip() for key, value in row.items() if key and value}
            if "image_filename" in cells:
                tags[cells["image_filename"]] = LIGHTING.get(cells.get("lighting", "").title(), "")
                cities[cells["image_filename"]] = cells.get("city", "")
    return tags, cities
