# SPDX-License-Identifier: Apache-2.0
"""A look at the data of a run before anything is prepared or compiled: every fault at once, in one bounded list.

What can be seen without decoding is looked at in every file: whether labels and references are there, headers, sizes,
the ends of files. Of the labels a sample is decoded. `nightjax check` decodes all.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from nightjax.core.errors import Absent, UserError
from nightjax.core.files import read_bytes
from nightjax.core.types import IGNORE
from nightjax.data import containers, label_images, sources
from nightjax.data.containers import BrokenFile, Header
from nightjax.data.folders import FolderSource

SHOWN = 3
"""So many names stand for a list of records."""

SETS_SHOWN = 4
"""So many data sets with faults are named in one error."""

SAMPLE = 16
"""So many labels of a folder are decoded before a run."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One stream or evaluation set of a run: which records, which fields of them, and whether they may be absent."""

    dataset: str
    split: str
    fields: tuple[str, ...]
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a look at a data set found.

    Attributes:
        faults: what keeps records from being read, each a line with a count and some names.
        notes: what the user should know.
    """

    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def look(wanted: Mapping[str, Wanted], *, data_dir: str = "", manual_dir: str = "") -> list[str]:
    """Looks at all data sets of a run. Prepares nothing.

    Args:
        wanted: by the name of its section, such as ``"data.streams.source"``.
        data_dir, manual_dir: see `sources.open_source`.

    Returns:
        What the user should know, a line each.

    Raises:
        UserError: something is wrong with one set or several; names them all, up to a bound.
    """
    by_set: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for where, one in wanted.items():
        places, fields = by_set.setdefault((one.dataset, one.split), ([], []))
        places.append(where)
        fields += [field for field in one.fields if field not in fields]
    faults: dict[str, str] = {}
    notes: list[str] = []
    for (dataset, split), (places, fields) in by_set.items():
        try:
            found = _look_at(dataset, split, fields, data_dir, manual_dir)
        except UserError as error:
            if isinstance(error, Absent) and all(wanted[place].optional for place in places):
                continue
            faults[" and ".join(places)] = str(error)
            continue
        notes += found.notes
        if found.faults:
            faults[" and ".join(places)] = f"{dataset}, split {split!r}: {'; '.join(found.faults)}"
    if len(set(faults.values())) == 1:
        raise UserError(next(iter(faults.values())))
    if faults:
        listed = [f"{where}: {_cut(fault)}" for where, fault in list(faults.items())[:SETS_SHOWN]]
        more = f"; and {len(faults) - SETS_SHOWN} more" if len(faults) > SETS_SHOWN else ""
        raise UserError(f"{len(faults)} data sets have faults: {'; '.join(listed)}{more}")
    return list(dict.fromkeys(notes))


def inspect(source: FolderSource, fields: Sequence[str]) -> Findings:
    """Looks at a split of a plain folder.

    Args:
        source: the split.
        fields: some of ``image``, ``label`` and ``reference``; others a folder does not have.
    """
    if not len(source):
        return Findings((f"{source.name}, split {source.split!r}, has no records{_left(source, 'images')}",))
    faults = []
    for field, partners in (("label", source.labels), ("reference", source.references)):
        lacking = [name for name in source.names if name not in partners] if field in fields else []
        if lacking:
            faults.append(
                f"{len(lacking)} of {len(source)} images have no {field!r} ({some(lacking)}): choose a data set or "
                f"split that has one{_left(source, f'{field}s')}"
            )
    looked = _in_threads(lambda name: _look_at_files(source, name, fields), source.names)
    for kind in ("unreadable", "sizes"):
        wrong = {name: record.faults[kind] for name, record in looked.items() if kind in record.faults}
        if wrong:
            what = "cannot be read" if kind == "unreadable" else "have parts of different sizes"
            faults.append(
                f"{len(wrong)} of {len(source)} records {what}: {some([f'{k!r}, {v}' for k, v in wrong.items()])}"
            )
    notes = []
    turned = [name for name, record in looked.items() if record.orientation != 1 and name in source.labels]
    if turned and "label" in fields:
        notes.append(
            f"{source.name}: {len(turned)} labeled photos have an EXIF orientation ({some(turned)}); they are turned "
            "as viewers turn them, and their labels must show the turned photos"
        )
    if passed := _passed(source, fields):
        notes.append(f"{source.name}: {passed}")
    if "label" in fields and not faults:
        of_labels = _look_at_labels(source)
        faults, notes = [*faults, *of_labels.faults], [*notes, *of_labels.notes]
    return Findings(tuple(faults), tuple(notes))


def some(names: Iterable[str], shown: int = SHOWN) -> str:
    """The first few names of a list, with ``...`` for others."""
    names = list(names)
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


@dataclasses.dataclass(frozen=True)
class _Record:
    faults: Mapping[str, str]
    orientation: int = 1


def _look_at(dataset: str, split: str, fields: Sequence[str], data_dir: str, manual_dir: str) -> Findings:
    """Looks at one data set, whose name may join several."""
    faults, notes = [], []
    for part in sources.parts_of(dataset):
        if part.partition(":")[0].partition("/")[0] != "folder":
            sources.check_available(part, split, data_dir=data_dir, manual_dir=manual_dir)
            continue
        source = sources.open_source(part, split, data_dir=data_dir, manual_dir=manual_dir)
        assert isinstance(source, FolderSource)
        found = inspect(source, fields)
        faults, notes = [*faults, *found.faults], [*notes, *found.notes]
    return Findings(tuple(faults), tuple(notes))


def _look_at_files(source: FolderSource, name: str, fields: Sequence[str]) -> _Record:
    """The headers and ends of a record's files."""
    files = {"image": source.images[source.place(name)], "label": source.labels.get(name)}
    files["reference"] = source.references.get(name)
    headers: dict[str, Header] = {}
    for field, path in files.items():
        if field not in fields or path is None:
            continue
        try:
            headers[field] = _whole(path, label_images.read_header if field == "label" else containers.read_header)
        except BrokenFile as error:
            return _Record({"unreadable": f"{field} {error}"})
        except OSError as error:
            return _Record({"unreadable": f"{field} {error.strerror}"})
    image = headers["image"]
    for field, header in headers.items():
        if header.size != image.size:
            return _Record(
                {"sizes": f"{field} is {_size(header)} but image is {_size(image)}{_unturned(image, header)}"}
            )
    return _Record({}, image.orientation)


def _whole(path: pathlib.Path, read: Callable[[pathlib.Path], Header]) -> Header:
    header = read(path)
    if not containers.has_end(path, header.kind):
        containers.check_complete(read_bytes(path))
    return header


def _unturned(image: Header, other: Header) -> str:
    if image.orientation == 1 or other.size != image.stored:
        return ""
    return f", which its EXIF orientation {image.orientation} turns: turn both or remove the orientation"


def _look_at_labels(source: FolderSource) -> Findings:
    """Decodes a sample of the labels, spread evenly."""
    step = max(1, -(-len(source) // SAMPLE))
    names = source.names[::step]
    try:
        read = _in_threads(source.read_label, names)
    except UserError as error:
        return Findings((str(error),))
    notes = []
    unnamed: Counter[str] = Counter()
    for label in read.values():
        unnamed.update(label.unnamed)
    pixels = sum(label.train_ids.size for label in read.values())
    if unnamed:
        shares = [f"{code}: {100 * count / pixels:.3g} %" for code, count in unnamed.most_common(SHOWN)]
        first = next(name for name, label in read.items() if label.unnamed)
        notes.append(
            f"{source.name}: values that nobody named are ignored, in {len(names)} labels looked at "
            f"{'; '.join(shares)} of the pixels, first in {first}: nightjax check lists them"
        )
    present = np.unique(np.concatenate([np.unique(label.train_ids) for label in read.values()]))
    classes = [source.classes.names[k] for k in present if k != IGNORE]
    if len(classes) < 2:
        found = f"hold only {classes[0]!r} and ignored pixels" if classes else "mark no class at all"
        notes.append(f"{source.name}: the {len(names)} labels looked at {found}: is that meant?")
    return Findings((), tuple(notes))


def _in_threads(work: Callable, names: Sequence[str]) -> dict:
    with concurrent.futures.ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def _passed(source: FolderSource, fields: Sequence[str]) -> str:
    parts = tuple(f"{'images' if field == 'image' else field + 's'}/" for field in fields)
    return source.passed_summary(parts)


def _left(source: FolderSource, part: str) -> str:
    """What lies where the files of a part should be, for messages about missing ones."""
    passed = source.passed_summary((f"{part}/",))
    return f"; {passed}" if passed else ""


def _size(header: Header) -> str:
    return f"{header.size[1]}x{header.size[0]}"


def _cut(text: str, length: int = 160) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
