# SPDX-License-Identifier: Apache-2.0
"""NEXET 2017: 50,000 unlabeled dash-camera photos with a lighting tag."""

import csv
import pathlib

from nightjax.core.parallel import parallel_map
from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles
from nightjax.selection import brightness

EXPECTED = 50_000
LIGHTING = {"Day": "day", "Twilight": "twilight", "Night": "night"}
POLICIES = {
    "agree": "whose tag and brightness agree",
    "brightness": "by brightness alone",
    "otsu": "by brightness alone, the threshold found by Otsu's rule",
}
"""Config ``LIGHT_POLICY``: how `brightness.split_day_night` tells day from night."""

LAYOUT = layouts.Layout(
    title="NEXET 2017",
    page="https://www.kaggle.com/datasets/solesensei/nexet-original",
    folders=("nexet", "nexet-original"),
    markers=("nexet_2017_1",),
    archives={"nexet-original.zip": "nexet_2017_1/*", "nexet.zip": "nexet_2017_1/*"},
)


def _config(name: str, description: str) -> builder.Config:
    return builder.Config(name=name, select=name, labeled=False, description=description)


_ALL = _config("all", "All photos; mostly 1280x720, not all.")


class Builder(builder.SegmentationBuilder):
    """TFDS builder of NEXET."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [
        _ALL,
        builder.prepared(_ALL, "prepared"),
        *(_config(name, f"Photos tagged {tag}; some tags are wrong.") for tag, name in LIGHTING.items()),
        *(
            _config(f"{light}_{policy}", f"Photos by {light}, {text}.")
            for light in ("day", "night")
            for policy, text in POLICIES.items()
        ),
    ]

    def scan(self, tree: layouts.Tree) -> Scan:
        wanted, _, policy = self.builder_config.select.partition("_")
        photos = {path.name: path for path in tree.glob("nexet_2017_1/*.jpg").values()}
        tags, cities = _read_tags(tree)
        chosen = _by_brightness(photos, tags, wanted, policy) if policy else None
        scan = Scan(
            {"train": [], "test": []},
            {"train": EXPECTED} if wanted == "all" else {},
            exhaustive=wanted == "all",
        )
        for name in sorted(photos.keys() | tags.keys()):
            condition = tags.get(name, "")
            if name not in photos:
                scan.unmatched.append(f"{name} is in train.csv but not here")
            elif name not in tags:
                scan.unmatched.append(f"{name} is not in train.csv")
            fits = wanted in ("all", condition) if chosen is None else name in chosen
            if name in photos and fits:
                path, stem = photos[name], pathlib.PurePath(name).stem
                record = ExampleFiles(stem, str(path), stem, condition=condition, sequence=cities.get(name, ""))
                split = "train" if chosen is None or brightness.is_training(name) else "test"
                scan.splits[split].append(record)
        if not tags:
            scan.notes.append("no train.csv with the columns image_filename and lighting: lighting is unknown")
        return scan


def _by_brightness(photos: dict[str, pathlib.Path], tags: dict[str, str], light: str, policy: str) -> set[str]:
    """Names of the photos in one light; those that cannot be read stay in, to be reported with the rest."""
    names = sorted(photos)
    if policy == "agree":
        names = [name for name in names if tags.get(name) == light]
    paths = [str(photos[name]) for name in names]
    found = parallel_map(brightness.file_brightness, paths, desc="nexet brightness")
    gammas = dict(zip(names, found, strict=True))
    readable = {name: gamma for name, gamma in gammas.items() if gamma is not None}
    return {
        *brightness.split_day_night(readable, tags, policy)[light],
        *(gammas.keys() - readable.keys()),
    }


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
