# SPDX-License-Identifier: Apache-2.0
"""What the files of a data set are recognized by when they have moved: names, sizes and a sample of their bytes."""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from nightjax.data.conversion import ConvertedSource
from nightjax.data.folders import FolderSource
from nightjax.data.sources import JoinedSource, Source

SAMPLE = 16
"""So many images are sampled, spread evenly, and as many labels."""

BYTES = 4096
"""So many bytes at the start and at the end of each file sampled."""


def of_source(source: Source) -> str:
    """A text that equal files give, wherever they lie; "" for data sets that a builder has prepared.

    It reads the names and sizes of all images, labels and references of the split, in their order, what the values
    mean, and `BYTES` at both ends of `SAMPLE` images and labels. A changed pixel in the middle of a large file may stay
    unseen; another set of files does not.
    """
    if isinstance(source, JoinedSource):
        parts = [of_source(part) for part in source.parts]
        return hashlib.sha256("+".join(parts).encode()).hexdigest() if all(parts) else ""
    if not isinstance(source, FolderSource):
        return ""
    digest = hashlib.sha256()
    digest.update(repr((source.classes.names, sorted(source.reader.codes.values.items()))).encode())
    step = max(1, -(-len(source) // SAMPLE))
    for index, name in enumerate(source.names):
        files = (source.images[index], source.labels.get(name), source.references.get(name))
        sizes = [None if path is None else os.stat(path).st_size for path in files]
        digest.update(f"{name}\0{sizes}\n".encode())
        if index % step == 0:
            for path in files[:2]:
                digest.update(_ends(path) if path is not None else b"-")
    return digest.hexdigest()


def facts(source: Source) -> dict[str, Any]:
    """What two sources must have in common to hold the same records, JSON-serializable, wherever they lie."""
    if isinstance(source, JoinedSource):
        return {"parts": [facts(part) for part in source.parts]}
    if isinstance(source, ConvertedSource):
        return facts(source.stored)
    found = of_source(source) or _of_records(source)
    return {"records": len(source), "labels": source.label_version, "files": found[:16]}


def _of_records(source: Source) -> str:
    """SHA-256 of `SAMPLE` records, spread evenly. The bytes of prepared files may differ from machine to machine."""
    digest = hashlib.sha256()
    for index in range(0, len(source), max(1, -(-len(source) // SAMPLE))):
        for key, value in sorted(source[index].items()):
            digest.update(f"{key}\0".encode() + (value if isinstance(value, bytes) else np.asarray(value).tobytes()))
    return digest.hexdigest()


def _ends(path: pathlib.Path) -> bytes:
    with open(path, "rb") as file:
        start = file.read(BYTES)
        file.seek(max(os.fstat(file.fileno()).st_size - BYTES, 0))
        return start + file.read(BYTES)
