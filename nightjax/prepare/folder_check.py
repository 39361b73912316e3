# SPDX-License-Identifier: Apache-2.0
"""Checks a plain folder with the code that training reads it with, and says what it holds.

A fault is what training refuses, or what spoils a result: pairs that do not fit, frames in two splits. A warning is
what training does differently than one may expect, such as values that nobody named, which are ignored.
"""

import dataclasses
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.parallel import parallel_map
from nightjax.core.types import IGNORE
from nightjax.data import containers, imagefiles, labels, preflight, transforms
from nightjax.data.folders import FolderSource
from nightjax.prepare import check, inspection
from nightjax.prepare.inspection import Inspection

SHOWN = 10
"""So many values, sizes or files of one kind are listed."""

SHEET = (6, 4, 160)
"""Columns, rows and width of the cells of a contact sheet."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        faults: one line each.
        warnings: one line each.
        lines: what the folder holds.
    """

    faults: list[str]
    warnings: list[str]
    lines: list[str]


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What one record looks like."""

    name: str
    inspection: Inspection
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    counts: np.ndarray | None = None
    stored: np.ndarray | None = None
    unnamed: dict[str, int] = dataclasses.field(default_factory=dict)


def check_folder(root: str, encoding: str = "train_ids", sheet: str = "") -> Report:
    """Checks every record of a plain folder; see `FolderSource`.

    Args:
        root: the folder.
        encoding: of its labels.
        sheet: file to write a contact sheet to, a PNG: images beside their labels, spread evenly; "" for none.

    Raises:
        UserError: there are no images, or the folder cannot be read at all.
    """
    source = FolderSource(root, "all", encoding=encoding)
    if not len(source):
        raise UserError(f"no images below {source.root / 'images'}{_passed(source)}")
    fields = fields_of(source)
    faults = _lonely(source, fields) + _wrong_splits(source)
    seen = _look(source, fields)
    by_split: dict[str, list[Inspection]] = defaultdict(list)
    for record in seen:
        by_split[record.name.split("/")[0] if "/" in record.name else "all"].append(record.inspection)
    faults += [fault for record in seen for fault in record.inspection.faults]
    bare = {split: [dataclasses.replace(i, faults=()) for i in items] for split, items in by_split.items()}
    faults += check.compare(bare)
    labeled = [record.counts for record in seen if record.counts is not None]
    if labeled and not np.sum(labeled, axis=0)[:IGNORE].any():
        faults.append("labels: no label marks any class")
    if not faults:
        faults = list(preflight.inspect(source, fields).faults)
    warnings = _warnings(source, seen)
    if sheet:
        _write_sheet(source, fields, sheet)
    return Report(faults, warnings, _summary(source, seen, by_split))


def _wrong_splits(source: FolderSource) -> list[str]:
    """Splits that training could not read, or would find empty: lists of names that are not there, for example."""
    faults = []
    for split in source.splits():
        try:
            if not len(FolderSource(source.root, split, encoding=source.encoding)):
                faults.append(f"split: {split!r} has no images")
        except UserError as error:
            faults.append(f"split: {error}")
    return faults


def fields_of(source: FolderSource) -> tuple[str, ...]:
    """What the folder has of ``image``, ``label`` and ``reference``."""
    has = lambda part, partners: bool(partners or source.lonely[part] or source.passed_summary((f"{part}/",)))
    fields = ("image",)
    fields += ("label",) if has("labels", source.labels) else ()
    return fields + (("reference",) if has("references", source.references) else ())


def _look(source: FolderSource, fields: Sequence[str]) -> list[_Seen]:
    """Every record, looked at on all cores."""
    count = max(1, len(source) // 512)
    chunks = [source.subset(range(i, min(i + count, len(source)))) for i in range(0, len(source), count)]
    step = max(1, -(-len(source) // check.MAX_PAIRS))
    paired = frozenset(source.names[::step]) if "reference" in fields else frozenset()
    work = functools.partial(_look_at, fields=tuple(fields), paired=paired)
    return [record for chunk in parallel_map(work, chunks, desc=f"check {source.root.name}") for record in chunk]


def _look_at(source: FolderSource, fields: tuple[str, ...], paired: frozenset[str]) -> list[_Seen]:
    return [_look_at_record(source, index, fields, source.names[index] in paired) for index in range(len(source))]


def _look_at_record(source: FolderSource, index: int, fields: tuple[str, ...], paired: bool) -> _Seen:
    """One record, decoded as training decodes it."""
    name, record = source.names[index], source[index]
    lacking = [field for field in fields if field not in record]
    faults = [f"partner: {name} has no {' and no '.join(lacking)}"] if lacking else []
    fields = tuple(field for field in fields if field in record)
    facts = {}
    example = {}
    try:
        data = record["image"]
        header = containers.read_header(data)
        facts = {"digest": hashlib.blake2b(data, digest_size=16).hexdigest(), "orientation": header.orientation}
        facts["size"] = header.size
        if "label" in fields:
            label = source.read_label(name)
            facts["counts"] = labels.histogram(label.train_ids)
            facts["unnamed"] = dict(label.unnamed)
            values = label.stored.values
            if values.ndim == 2 and values.max(initial=0) < 256:
                facts["stored"] = labels.histogram(values)
        example = transforms.decode(record, fields)
    except UserError as error:
        faults.append(f"broken: {error}")
    except containers.BrokenFile as error:
        faults.append(f"broken: record {name!r}, image {error}")
    reference = example.get("reference") if paired else None
    seen = inspection.inspection_of(name, faults, example.get("image"), reference, name)
    return _Seen(name, seen, **facts)


def _lonely(source: FolderSource, fields: Sequence[str]) -> list[str]:
    lonely = {name for part in ("labels", "references") for name in source.lonely[part]}
    return [f"partner: {name} has no image" for name in sorted(lonely)]


def _warnings(source: FolderSource, seen: Sequence[_Seen]) -> list[str]:
    found = []
    labeled = [record for record in seen if record.counts is not None]
    pixels = sum(int(record.counts.sum()) for record in labeled if record.counts is not None)
    unnamed: Counter[str] = Counter()
    first: dict[str, str] = {}
    for record in labeled:
        unnamed.update(record.unnamed)
        for code in record.unnamed:
            first.setdefault(code, record.name)
    for code, count in unnamed.most_common(SHOWN):
        share = 100 * count / pixels
        found.append(f"nobody named {code}: {share:.3g} % of the pixels, first in {first[code]}; they are ignored")
    if len(unnamed) > SHOWN:
        found.append(f"nobody named {len(unnamed) - SHOWN} more values: are these labels masks of colors or a JPEG?")
    stored = [record.stored for record in labeled if record.stored is not None]
    if source.encoding == "label_ids" and stored:
        reason = labels.suspicious_encoding(np.sum(stored, axis=0), "label_ids")
        found += [reason] if reason else []
    turned = [record.name for record in seen if record.orientation != 1]
    with_label = [name for name in turned if name in source.labels]
    if with_label:
        found.append(
            f"{len(with_label)} labeled photos have an EXIF orientation ({preflight.some(with_label)}): they are "
            "turned as viewers turn them, and their labels must show the turned photos"
        )
    found += _of_few_classes(source, labeled)
    twins = _twins(seen)
    if twins:
        found.append(f"{len(twins)} images are the same file as another: {preflight.some(twins)}")
    return found


def _of_few_classes(source: FolderSource, labeled: Sequence[_Seen]) -> list[str]:
    """Warnings about labels that mark one class or none, alone and all together."""
    present = {
        record.name: [k for k in np.flatnonzero(record.counts) if k != IGNORE]
        for record in labeled
        if record.counts is not None
    }
    none = [name for name, classes in present.items() if not classes]
    one = [name for name, classes in present.items() if len(classes) == 1]
    every = {k for classes in present.values() for k in classes}
    found = []
    if none:
        found.append(f"{len(none)} of {len(labeled)} labels mark no class at all: {preflight.some(none)}")
    if one:
        found.append(f"{len(one)} of {len(labeled)} labels mark one class only: {preflight.some(one)}")
    if labeled and len(every) == 1:
        (only,) = every
        line = f"all labels together mark only {source.classes.names[only]!r}, and the rest is ignored"
        if source.encoding != "own":
            line += ': a mask of 0 and 255 needs a labels.json such as {"0": "background", "255": "building"}'
        found.append(line)
    return found


def _twins(seen: Sequence[_Seen]) -> list[str]:
    first: dict[str, str] = {}
    twins = []
    for record in seen:
        if record.digest and first.setdefault(record.digest, record.name) != record.name:
            twins.append(f"{record.name} is {first[record.digest]}")
    return twins


def _summary(source: FolderSource, seen: Sequence[_Seen], by_split: dict[str, list[Inspection]]) -> list[str]:
    """What the folder holds, in words and a table."""
    splits = ", ".join(f"{split} {len(items)}" for split, items in by_split.items())
    sizes = Counter(f"{record.size[1]}x{record.size[0]}" for record in seen if record.size != (0, 0))
    common = ", ".join(f"{count} of {size}" for size, count in sizes.most_common(SHOWN))
    lines = [f"{len(seen)} images ({splits}), {len(source.labels)} labels, {len(source.references)} references"]
    lines.append(f"sizes as shown: {common}{', ...' if len(sizes) > SHOWN else ''}")
    orientations = Counter(record.orientation for record in seen if record.orientation != 1)
    if orientations:
        lines.append(f"EXIF orientation: {', '.join(f'{n} photos {k}' for k, n in sorted(orientations.items()))}")
    if passed := source.passed_summary(("",)):
        lines.append(passed)
    counts = [record.counts for record in seen if record.counts is not None]
    if not counts:
        return lines
    total, images = np.sum(counts, axis=0), np.sum([row > 0 for row in counts], axis=0)
    marked = max(int(total[:IGNORE].sum()), 1)
    lines.append(f"classes ({source.encoding}), share of the labeled pixels and number of images:")
    width = max(map(len, source.classes.names))
    for k, name in enumerate(source.classes.names):
        if total[k]:
            lines.append(f"  {k:3d} {name:{width}s} {100 * total[k] / marked:8.3f} % {images[k]:6d}")
    if absent := [name for k, name in enumerate(source.classes.names) if not total[k]]:
        lines.append(f"  absent: {', '.join(absent)}")
    lines.append(f"  ignored: {100 * total[IGNORE] / total.sum():.3f} % of all pixels")
    return lines


def _passed(source: FolderSource) -> str:
    passed = source.passed_summary(("images/",))
    return f" ({passed})" if passed else ""


def _write_sheet(source: FolderSource, fields: Sequence[str], path: str) -> None:
    """A PNG of some images, each beside its label in the colors of the classes; what cannot be read is left out."""
    columns, rows, width = SHEET
    step = max(1, -(-len(source) // (columns * rows)))
    cells = []
    for index in range(0, len(source), step):
        record = source[index]
        try:
            example = transforms.decode(record, [field for field in fields if field in record and field != "reference"])
        except UserError:
            continue
        parts = [example["image"]]
        if "label" in example:
            parts.append(source.classes.colorize(example["label"]))
        cells.append(np.hstack([_cell(part, width) for part in parts]))
    if not cells:
        raise UserError(f"nothing to show on {path}: no record can be read")
    wide = max(cell.shape[1] for cell in cells)
    cells = [np.pad(cell, ((2, 2), (2, 2 + wide - cell.shape[1]), (0, 0))) for cell in cells]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    grid = np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])
    with open(path, "wb") as file:
        file.write(imagefiles.encode_png(grid))


def _cell(pixels: np.ndarray, width: int) -> np.ndarray:
    """Fitted into a square."""
    scale = width / max(pixels.shape[:2])
    height, wide = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = cv2.resize(pixels, (wide, height), interpolation=cv2.INTER_AREA)
    return np.pad(small, ((0, width - height), (0, width - wide), (0, 0)))
