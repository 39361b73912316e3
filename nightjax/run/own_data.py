# SPDX-License-Identifier: Apache-2.0
"""Settings of plain folders that depend on what is in them: which images to hold out, and the size to train at.

A config leaves them open by ``split="auto"``, ``resize=(0, 0)`` and ``input_size=(0, 0)``. They are chosen when a run
starts, printed, and kept in its config, so that a continued run has the same ones. Each can be given instead.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from nightjax.core.errors import UserError
from nightjax.data import containers, sources
from nightjax.data.folders import FolderSource
from nightjax.data.loading import AUTO_SIZE

AUTO_SPLIT = "auto"

VALIDATION = ("val", "validation", "valid")
"""Names of a split that is for scoring."""

TRAINING = ("train", "training")

HELD_OUT = 10
"""One image of so many is held out where there is no split for scoring."""

ENOUGH = 1.5
"""Images whose short side is at most so many times the crop's long side keep their size."""

SAMPLE = 200
"""So many headers say which sizes the images of a folder have."""


def resolve(
    config: ml_collections.ConfigDict, saved: ml_collections.ConfigDict | None = None
) -> ml_collections.ConfigDict:
    """The locked config with everything chosen that it leaves open.

    Args:
        config: complete, of a run that starts, goes on or is evaluated.
        saved: what the run saved when it started; its values are taken.

    Raises:
        UserError: a set that is no single plain folder leaves something open, or a folder cannot be read.
    """
    plain: dict[str, Any] = config.to_dict()
    before: dict[str, Any] = saved.to_dict() if saved else {}
    streams, sets = plain["data"]["streams"], {k: v for k, v in plain["eval"]["sets"].items() if v is not None}
    _take(streams, before.get("data", {}).get("streams", {}), ("split", "resize"))
    _take(sets, before.get("eval", {}).get("sets", {}), ("split", "input_size"))
    folders = {("data.streams", name): one for name, one in streams.items()}
    folders |= {("eval.sets", name): one for name, one in sets.items()}
    open_ones = {key: one for key, one in folders.items() if _is_open(one)}
    if not open_ones:
        return ml_collections.ConfigDict(plain).lock()
    said: list[str] = []
    # A stream whose split somebody chose holds nothing out, unless it is the choice of a run.
    chosen = re.compile(rf"{AUTO_SPLIT}|.*\[:-\d+\]")
    holds_out = {key: key[0] == "data.streams" and bool(chosen.fullmatch(one["split"])) for key, one in folders.items()}
    roots = {key: _root(one["dataset"], plain["data"]["manual_dir"]) for key, one in folders.items()}
    for (section, name), one in open_ones.items():
        root = roots[section, name]
        if any(not _is_folder(part) for part in sources.parts_of(one["dataset"])):
            size = "resize" if "resize" in one else "input_size"
            raise UserError(
                f"{section}.{name} leaves split or {size} open, which are chosen for plain folders only, and reads "
                f"{one['dataset']!r}: give --config.{section}.{name}.split and --config.{section}.{name}.{size}"
            )
        if one["split"] != AUTO_SPLIT:
            continue
        one["split"] = "all"
        if root is not None:
            trained = any(holds_out[key] and other == root for key, other in roots.items())
            scored = any(key[0] == "eval.sets" and other == root for key, other in roots.items())
            one["split"] = _split(root, section == "eval.sets", trained, scored, said)
    for (section, name), one in open_ones.items():
        _choose_size(f"{section}.{name}", one, streams, plain["data"]["manual_dir"], said)
    if said and jax.process_index() == 0:
        print("\n".join(dict.fromkeys(said)), flush=True)
    return ml_collections.ConfigDict(plain).lock()


def fitting_size(sizes: Counter, crop: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) to resize images to, or None to keep their sizes.

    A crop should see a good part of an image, as one of 512 does in Cityscapes at half size (DAFormer's recipe): where
    the short side of most images is more than `ENOUGH` times the crop, it becomes as long as the crop.

    Args:
        sizes: (height, width) to the number of images.
        crop: (height, width) of the crops.
    """
    (height, width), _ = sizes.most_common(1)[0]
    wanted, short = max(crop), min(height, width)
    if short <= ENOUGH * wanted:
        return None
    return round(height * wanted / short), round(width * wanted / short)


def _take(sections: dict[str, Any], saved: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Fills in what a run chose when it started."""
    for name, section in sections.items():
        for key in keys:
            if section.get(key) in (AUTO_SPLIT, AUTO_SIZE) and key in (saved.get(name) or {}):
                section[key] = saved[name][key]


def _is_open(section: Mapping[str, Any]) -> bool:
    sizes = [tuple(section[key] or ()) for key in ("resize", "input_size") if key in section]
    return section["split"] == AUTO_SPLIT or AUTO_SIZE in sizes


def _root(dataset: str, manual_dir: str) -> str | None:
    """The folder of a data set that is one plain folder."""
    first, *others = sources.parts_of(dataset)
    if others or not _is_folder(first):
        return None
    return os.path.realpath(os.path.expanduser(sources.folder_root(first.partition(":")[2], manual_dir)))


def _is_folder(name: str) -> bool:
    return name.partition(":")[0].partition("/")[0] == "folder"


def _split(root: str, scores: bool, trained: bool, scored: bool, said: list[str]) -> str:
    """The split of a training stream or of an evaluation set, given what else reads the folder."""
    source = FolderSource(root)
    validation = next((name for name in VALIDATION if source.has_split(name)), None)
    training = next((name for name in TRAINING if source.has_split(name)), None)
    name = os.path.basename(root)
    if not (trained and scored) or validation:
        if scores:
            return validation or "all"
        others = [other for other in source.splits() if other not in (*VALIDATION, "test")]
        chosen = training or ("+".join(others) if validation and others else "all")
        if chosen == "all" and validation and scored:
            said.append(
                f"{name}: images of {validation!r} are trained on too, because others have no split of their own"
            )
        return chosen
    base = training or "all"
    count = len(FolderSource(root, base))
    held = max(1, round(count / HELD_OUT))
    if count < 2:
        said.append(f"{name} has one image: it is trained on and scored")
        return base
    said.append(
        f"{name} has no split for scoring: the last {held} of its {count} images are held out "
        f"(eval.sets.*.split={base}[-{held}:]; name another to choose)"
    )
    return f"{base}[-{held}:]" if scores else f"{base}[:-{held}]"


def _choose_size(where: str, one: dict[str, Any], streams: Mapping[str, Any], manual_dir: str, said: list[str]) -> None:
    """Replaces an open size, and says what it became."""
    key = "resize" if "resize" in one else "input_size"
    if tuple(one[key] or ()) != AUTO_SIZE:
        return
    sizes = _sizes(one["dataset"], one["split"], manual_dir)
    crops = [stream for stream in streams.values() if "label" in stream["fields"]] or list(streams.values())
    if not crops:
        raise UserError(f"{where}.{key} is chosen by the crops of data.streams, which has no stream: name one")
    crop = tuple(one["crop"] if key == "resize" else crops[0]["crop"])
    resize = crops[0].get("resize")
    if key == "input_size" and resize is None:  # Scored as trained: at the size of the files.
        one[key] = None
        return
    if key == "input_size" and tuple(resize) != AUTO_SIZE:
        (height, width), _ = sizes.most_common(1)[0]
        scale = min(min(resize) / min(height, width), 1.0)
        one[key] = (round(height * scale), round(width * scale))
    else:
        one[key] = fitting_size(sizes, crop)
    if one[key] is None:
        return
    (height, width), common = sizes.most_common(1)[0]
    line = f"{where}.{key}={one[key][0]},{one[key][1]} for images of {height}x{width}"
    others = sum(n for (h, w), n in sizes.items() if abs(h * width / (w * height) - 1) > 0.05)
    if others:
        line += f"; {others} of {sizes.total()} images looked at have another aspect ratio and are squeezed"
    said.append(line)


def _sizes(dataset: str, split: str, manual_dir: str) -> Counter:
    """(height, width) as shown to the number of images, of a sample of a folder."""
    opened = [sources.open_source(part, split, manual_dir=manual_dir) for part in sources.parts_of(dataset)]
    images = [path for source in opened if isinstance(source, FolderSource) for path in source.images]
    if not images:
        raise UserError(f"{opened[0].name}, split {split!r}, has no records")
    found: Counter = Counter()
    for path in images[:: max(1, -(-len(images) // SAMPLE))]:
        try:
            found[containers.read_header(path).size] += 1
        except (containers.BrokenFile, OSError):
            continue  # The look at all data, which follows, names it.
    if not found:
        raise UserError(f"{opened[0].name}, split {split!r}: no image can be read")
    return found
