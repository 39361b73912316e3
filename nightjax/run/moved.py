# SPDX-License-Identifier: Apache-2.0
"""Data of a run that lie elsewhere now: a plain folder is known by what is in it, not by its path."""

import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import read_json, write_whole
from nightjax.data import fingerprints, sources

FILE = "data.json"
"""File of a run folder with the fingerprints of its plain folders, by stream."""


def renamed(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config that a run began with, under the paths that its plain folders have in another config.

    Returns:
        The config, and the names of the streams whose path differs; `check_same` says whether they hold the same files.
    """
    plain, others = saved.to_dict(), config.data.streams
    moved = []
    for name, stream in plain["data"]["streams"].items():
        before, now = stream["dataset"], others[name].dataset if name in others else ""
        if before != now and _without_paths(before) == _without_paths(now):
            stream["dataset"] = now
            moved.append(name)
    return ml_collections.ConfigDict(plain).lock(), moved


def check_same(workdir: epath.Path, readers: Mapping[str, sources.Source], moved: list[str]) -> None:
    """Compares the files of a continued run with those that it began with.

    Args:
        workdir: of the run.
        readers: what it would read now, by stream.
        moved: see `renamed`.

    Raises:
        UserError: a moved folder holds other files. Files that have changed in their place are only told.
    """
    known = _known(workdir / FILE)
    for name, source in readers.items():
        if name not in known or not (found := fingerprints.of_source(source)):
            continue
        same_place = name not in moved and known[name]["place"] == _place(source)
        if found == known[name]["fingerprint"]:
            if not same_place:
                print(f"stream {name!r}: the same files as in {known[name]['place']}, now {source.name}", flush=True)
        elif same_place:
            print(f"stream {name!r}: files of {source.name} have changed since the run began", flush=True)
        else:
            place, records = known[name]["place"], known[name]["records"]
            raise UserError(
                f"{workdir} holds a run on {place} ({records} records); {source.name} ({len(source)} records) holds "
                "other files: bring the data back, or choose another --workdir"
            )


def _known(path: epath.Path) -> dict[str, dict[str, Any]]:
    """What `remember` wrote, or nothing in runs of earlier versions."""
    if not path.exists():
        return {}
    remedy = "restore it, or delete it to go on with the data as they are"
    known = read_json(path, dict, remedy)
    kinds = {"place": str, "records": int, "fingerprint": str}
    for name, facts in known.items():
        if not isinstance(facts, dict) or any(not isinstance(facts.get(key), kind) for key, kind in kinds.items()):
            raise UserError(f"{path} is damaged at {name!r}: {remedy}")
    return known


def remember(workdir: epath.Path, readers: Mapping[str, sources.Source]) -> None:
    """Writes down what `check_same` compares with."""
    facts: dict[str, Any] = {}
    for name, source in readers.items():
        if fingerprint := fingerprints.of_source(source):
            facts[name] = {"fingerprint": fingerprint, "records": len(source), "place": _place(source)}
    if facts:
        write_whole(workdir / FILE, json.dumps(facts, indent=1))


def to_manual_dir(config: ml_collections.ConfigDict, manual_dir: str) -> ml_collections.ConfigDict:
    """A config whose evaluation sets read their plain folders where ``manual_dir`` says that they are now.

    Where the sets name one folder, ``manual_dir`` is that folder; where they name several, it holds them by name.
    """
    plain = config.to_dict()
    sets = [section for section in plain["eval"]["sets"].values() if section is not None]
    paths = {_path(part) for section in sets for part in sources.parts_of(section["dataset"]) if _path(part)}
    places = {path: os.path.join(manual_dir, os.path.basename(path.rstrip("/"))) for path in paths}
    if len(paths) == 1:
        places = {path: place if _has_images(place) else manual_dir for path, place in places.items()}
    for section in sets:
        parts = []
        for part in sources.parts_of(section["dataset"]):
            place = places.get(_path(part), "")
            parts.append(f"{part.partition(':')[0]}:{place}" if place and _has_images(place) else part)
        section["dataset"] = "+".join(parts)
    return ml_collections.ConfigDict(plain).lock()


def _without_paths(dataset: str) -> list[str]:
    """The parts of a data set's name; those that are plain folders without their paths."""
    return [part.partition(":")[0] if _is_folder(part) else part for part in sources.parts_of(dataset)]


def _path(part: str) -> str:
    return part.partition(":")[2] if _is_folder(part) else ""


def _is_folder(part: str) -> bool:
    return part.partition(":")[0].partition("/")[0] == "folder"


def _has_images(folder: str) -> bool:
    return os.path.isdir(os.path.join(os.path.expanduser(folder), "images"))


def _place(source: sources.Source) -> str:
    if isinstance(source, sources.JoinedSource):
        return " + ".join(map(_place, source.parts))
    return os.path.realpath(source.root) if isinstance(source, sources.FolderSource) else source.name
