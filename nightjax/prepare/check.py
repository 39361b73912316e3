# SPDX-License-Identifier: Apache-2.0
"""Checks data before a long run: the files of a builder, or a prepared data set.

Each fault is one line. These are found: ids out of range, train ids in place of label ids and the reverse, labels of
another size, missing partners, extra files, wrong counts, frames that are in two splits, files that cannot be decoded,
and pairs that do not show the same place.
"""

import functools
import itertools
import pathlib
import tempfile
from collections.abc import Sequence

from nightjax.core import manifest
from nightjax.core.config import choose
from nightjax.core.errors import UserError, first_line
from nightjax.core.parallel import parallel_map
from nightjax.data import datasets, walking
from nightjax.data.tfds_source import open_builder
from nightjax.prepare import alignment
from nightjax.prepare.builder import SegmentationBuilder
from nightjax.prepare.inspection import (
    Inspection,
    duplicates,
    inspect_prepared,
    inspect_record,
    open_prepared,
)
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import Recipe

MAX_PAIRS = 400
"""At most this many pairs are compared, spread evenly over a split."""


def check_dataset(data: str, manual_dir: str, extract_dir: str = "") -> list[str]:
    """Checks downloaded files as their builder would read them.

    Args:
        data: ``NAME`` or ``NAME/CONFIG`` of `datasets.builder_modules`. For plain folders see `folder_check`.
        manual_dir: where the files are.
        extract_dir: where archives are unpacked; by default a temporary folder.

    Returns:
        One line for each fault.

    Raises:
        UserError: the data set or config is unknown or not made from downloaded files, or its files are not there.
    """
    name, _, config = data.partition("/")
    choose({**datasets.builder_modules(), "folder": ""}, name, "data set")
    builder_class = datasets.builder_class(name)
    if not issubclass(builder_class, SegmentationBuilder):
        raise UserError(f"data set {name!r} is not made from downloaded files: there is nothing to check")
    configs = {item.name: item for item in builder_class.BUILDER_CONFIGS}
    if config:
        choose(configs, config, f"{name}: config")
    with tempfile.TemporaryDirectory() as scratch:
        builder = builder_class(config=config or None, data_dir=scratch, file_format="array_record")
        scan = builder.find(manual_dir, pathlib.Path(extract_dir or scratch))
        return check_scan(scan, builder.own_config.recipe)


def check_scan(scan: Scan, recipe: Recipe = Recipe()) -> list[str]:
    """Checks the files behind a builder's scan.

    Args:
        scan: what a builder found.
        recipe: says whether labels may differ from their images in size.

    Returns:
        One line for each fault.
    """
    faults = [f"count: {split} has {_count(scan, split)} records, official is {n}" for split, n in _wrong_counts(scan)]
    faults += [f"partner: {text}" for text in scan.unmatched] + [f"alignment: {text}" for text in scan.doubtful]
    faults += [f"extra file: {name}" for name in extra_files(scan)]
    inspect = functools.partial(inspect_record, recipe=recipe)
    seen = {
        split: list(parallel_map(inspect, records, desc=f"check {split}")) for split, records in scan.splits.items()
    }
    return faults + compare(seen)


def check_prepared(folder: str) -> list[str]:
    """Checks a prepared data set, a folder with ``dataset_info.json``. Returns one line for each fault.

    Raises:
        UserError: the folder is no prepared data set.
    """
    if not (pathlib.Path(folder) / "dataset_info.json").is_file():
        raise UserError(f"{folder} is no prepared data set (no dataset_info.json); name the folder of one version")
    builder = open_builder(folder)
    report = builder.info.metadata or {}
    faults = [f"partner: {text}" for text in report.get("unmatched", ())]
    if manifest.is_there(folder) and (fault := manifest.fault(folder)):
        faults.append(f"broken: {fault}")
    seen = {}
    for split, info in builder.info.splits.items():
        part = report.get("splits", {}).get(split, {})
        faults += [f"broken: {split}/{key} was left out: {why}" for key, why in part.get("broken", {}).items()]
        if part.get("expected") not in (None, info.num_examples):
            faults.append(f"count: {split} has {info.num_examples} records, official is {part['expected']}")
        try:
            length = len(open_prepared(folder, split))
        except Exception as error:  # array_record raises a bare Exception on damaged files
            faults.append(f"broken: {split} cannot be opened ({first_line(error)})")
            continue
        if length != info.num_examples:
            faults.append(f"count: {split} holds {length} records, its description says {info.num_examples}")
        inspect = functools.partial(inspect_prepared, folder, split)
        seen[split] = list(parallel_map(inspect, range(length), desc=f"check {split}"))
    return faults + compare(seen)


def extra_files(scan: Scan) -> list[str]:
    """Files that lie beside those of the records but belong to no record.

    There are none in a config that picks from a larger set.
    """
    if not scan.exhaustive:
        return []
    records = list(itertools.chain.from_iterable(scan.splits.values()))
    used = {path for record in records for path in (record.image, record.label, record.reference, record.invalid)}
    known = {name for record in records for name in (_last(record.image_id), _last(record.reference_id))}
    known |= {_last(text.split()[0].rstrip(":")) for text in scan.unmatched}  # Reported already.
    photo_folders = {pathlib.Path(record.image).parent for record in records}
    folders = photo_folders | {pathlib.Path(path).parent for path in used if path}
    extra = []
    for path in itertools.chain.from_iterable(sorted(folder.iterdir()) for folder in sorted(folders)):
        if not path.is_file() or walking.is_litter(path.name) or str(path) in used:
            continue
        if (
            path.parent in photo_folders
            and path.suffix in walking.IMAGE_SUFFIXES
            and _official(path.stem, scan.unmatched)
        ):
            continue
        if path.parent in photo_folders or not _belongs(path.stem, known):
            extra.append(f"{path.parent.name}/{path.name}")
    return extra


def compare(seen: dict[str, list[Inspection]]) -> list[str]:
    """The faults of single records, then those that show only between records."""
    faults = [
        f"{fault.partition(': ')[0]}: {split}/{item.key}: {fault.partition(': ')[2]}"
        for split, items in seen.items()
        for item in items
        for fault in item.faults
    ]
    for first, second in itertools.combinations(seen, 2):
        faults += [f"duplicate: {first}/{a} is {second}/{b}" for a, b in duplicates(seen[first], seen[second])]
    for split, items in seen.items():
        paired = [item for item in items if item.views is not None]
        paired = paired[:: max(1, -(-len(paired) // MAX_PAIRS))]
        views = [item.views for item in paired if item.views is not None]
        suspects = alignment.suspects(views, [item.reference_id for item in paired])
        if suspects is None:
            faults.append(f"alignment: {split}: references fit their images no better than wrong ones do")
        else:
            faults += [
                f"alignment: {split}/{paired[i].key}: does not show the place of its reference" for i in suspects
            ]
    return faults


def _wrong_counts(scan: Scan) -> list[tuple[str, int]]:
    return [(split, n) for split, n in scan.expected.items() if _count(scan, split) != n]


def _count(scan: Scan, split: str) -> int:
    return len(scan.splits.get(split, ()))


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _belongs(stem: str, known: set[str]) -> bool:
    """Whether a file is named by a known id, with or without further ``_`` tokens."""
    parts = stem.split("_")
    return any("_".join(parts[:count]) in known for count in range(len(parts), 0, -1))


def _official(stem: str, unmatched: Sequence[str]) -> bool:
    """Whether a photo has already been reported as one without a partner."""
    names = {_last(text.split()[0].rstrip(":")) for text in unmatched}
    return _belongs(stem, names)
