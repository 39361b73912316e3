# SPDX-License-Identifier: Apache-2.0
"""The class set of a run: which it is, and what labels say of it. Settled when a run starts, and kept in its config.

A run has the classes of its labeled source unless the config names others. What nobody says of a class, how it behaves
and how rare it is, is measured on labels of the source; it is printed, and every bit of it is a key that may be set.
"""

import dataclasses
import difflib
from typing import Any

import cv2
import jax
import ml_collections
import numpy as np

from nightjax.core import class_section
from nightjax.core.classes import CITYSCAPES, CLASS_SETS, KINDS, ClassSet, plain_name
from nightjax.core.errors import UserError
from nightjax.data import sources, transforms

SAMPLED = 200
"""So many labels are measured at most, evenly spread over the source."""

COARSE = 512
"""Pixels of the longer side of a label that are looked at, at least; twice as many at most."""

LARGE, SMALL = 0.02, 0.003
"""Share of an image from which the largest object of a class is taken for scenery, which does not move, and below which
it is small. On 152 labels of CamVid's days sky, building, road, pavement and tree are above the first, fence and car
between, and pole, sign, pedestrian and bicyclist below the second."""

RARE = 0.1
"""A class that may be pasted is rare if its share of the pixels is below this part of an equal share."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What labels say of each class.

    Attributes:
        share: float64 [K], of the labeled pixels; half a pixel for a class that does not occur.
        size: float64 [K], share of an image that the largest connected component of the class covers, the median over
            the images that have one; NaN for a class that does not occur.
        images: how many were measured.
    """

    share: np.ndarray
    size: np.ndarray
    images: int


def resolve(
    config: ml_collections.ConfigDict, saved: ml_collections.ConfigDict | None = None, measured: bool = True
) -> ml_collections.ConfigDict:
    """The locked config whose section ``classes`` says everything.

    Args:
        config: complete, of a run that starts or goes on.
        saved: what the run saved when it started; what the config leaves open is taken from there.
        measured: measure what nobody says; otherwise it stays open.

    Raises:
        UserError: the section names what is not there, or the source cannot be read.
    """
    given = config.classes.to_dict()
    if saved is not None and "classes" in saved:
        filled = _filled(given, saved.classes.to_dict())
        section = class_section.section_of(class_section.of_section(filled)) | {"merges": filled["merges"]}
    else:
        stream = _labeled(config)
        classes = class_section.changed(_base(given, config, stream), given)
        if measured and stream is not None and not classes.pixel_share:
            classes = _measured(classes, given, config, stream)
        section = class_section.section_of(classes) | {"merges": given["merges"]}
    result = ml_collections.ConfigDict(config.to_dict() | {"classes": section})
    return result.lock()


def _filled(given: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The saved section with what is given on top; a mapping joins the one that stands there."""
    open_value = lambda value: value is None or value in ("", ()) or value == {}
    found = {}
    for name in given.keys() | saved.keys():
        new, old = given.get(name), saved.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found[name] = _filled(new, old)
        else:
            found[name] = old if open_value(new) else new
    return found


def _labeled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict | None:
    """The stream that names the classes: the first with labels."""
    return next((stream for stream in config.data.streams.values() if "label" in stream.fields), None)


def _base(
    given: dict[str, Any], config: ml_collections.ConfigDict, stream: ml_collections.ConfigDict | None
) -> ClassSet:
    if given["names"] or given["name"] or stream is None:
        return class_section.of_section({"name": given["name"], "names": given["names"]})
    return sources.class_set(stream.dataset, data_dir=config.data.dir, manual_dir=config.data.manual_dir)


def _measured(
    classes: ClassSet, given: dict[str, Any], config: ml_collections.ConfigDict, stream: ml_collections.ConfigDict
) -> ClassSet:
    """The class set with pixel shares, and with groups for classes of which nobody says how they behave."""
    source = sources.open_source(
        stream.dataset,
        stream.split,
        data_dir=config.data.dir,
        manual_dir=config.data.manual_dir,
        classes=classes,
        merges=given["merges"],
    )
    found = measure(source)
    said = {name for name, names in given["groups"].items() if names is not None}
    result = with_measured_groups(classes, found, said)
    if jax.process_index() == 0:
        print("\n".join(report(result, found, source)), flush=True)
    return result


def measure(source: sources.Source) -> Measured:
    """Share and size of each class in a source's labels.

    Raises:
        UserError: none of the labels has a class.
    """
    count, total = len(source.classes), max(len(source), 1)
    picked = range(0, len(source), -(-total // SAMPLED))
    pixels, largest = np.zeros(count), [[] for _ in range(count)]
    for index in picked:
        label = transforms.decode(source[index], ("label",), count)["label"]
        step = max(1, max(label.shape) // COARSE)
        label = label[::step, ::step]
        for k in np.unique(label[label < count]):
            _, _, stats, _ = cv2.connectedComponentsWithStats((label == k).astype(np.uint8), connectivity=8)
            areas = stats[1:, cv2.CC_STAT_AREA]
            pixels[k] += areas.sum()
            largest[k].append(areas.max() / label.size)
    if not pixels.sum():
        raise UserError(
            f"{source.name}, split {source.split!r}: no label has a pixel of any class: check what the values mean by "
            "nightjax check"
        )
    size = np.array([np.median(found) if found else np.nan for found in largest])
    return Measured(np.maximum(pixels, 0.5) / pixels.sum(), size, len(picked))


def with_measured_groups(classes: ClassSet, found: Measured, said: set[str]) -> ClassSet:
    """A class set with the shares that were measured, and groups by them where nobody says otherwise.

    A class in none of `KINDS` is ``static`` if its largest object in an image is large; else it is ``dynamic``, since a
    day view may not tell where it is at night, and ``small`` too if that object is tiny. Dynamic and small classes are
    things, unless their name is Cityscapes', which then decides. A thing of a small share is ``rare``.

    Args:
        classes: with the groups that are known.
        found: of its classes.
        said: groups that stay as they are.
    """
    groups = {name: set(members) for name, members in classes.groups.items()}
    for name in (*KINDS, "thing", "rare"):
        groups.setdefault(name, set())
    known = set(classes.group(*KINDS))
    for k, size in enumerate(found.size):
        if k in known:
            continue
        kinds = {"static"} if size >= LARGE else {"dynamic"} | ({"small"} if size < SMALL else set())
        for name in kinds - said:
            groups[name].add(k)
    if "thing" not in said and classes.name not in CLASS_SETS:
        named = {k for k, name in enumerate(classes.names) if plain_name(name) in CITYSCAPES.names}
        groups["thing"] |= (groups["dynamic"] | groups["small"]) - named
    if "rare" not in said and not classes.group("rare"):
        things = groups["thing"] | groups["dynamic"]
        groups["rare"] = {k for k in things if found.share[k] < RARE / len(classes)}
    share = found.share / found.share.sum()
    return dataclasses.replace(
        classes,
        groups={name: tuple(sorted(members)) for name, members in groups.items()},
        pixel_share=tuple(float(value) for value in share),
    )


def report(classes: ClassSet, found: Measured, source: sources.Source) -> list[str]:
    """Lines that say what was measured and decided."""
    lines = [
        f"classes: {len(classes)} of {classes.name}, measured on {found.images} labels of {source.name}; "
        "--config.classes.groups.NAME=a,b sets a group"
    ]
    width = max(map(len, classes.names))
    for k, name in enumerate(classes.names):
        groups = ", ".join(group for group, members in classes.groups.items() if k in members) or "no group"
        size = (
            "does not occur" if np.isnan(found.size[k]) else f"largest object {100 * found.size[k]:.2g} % of an image"
        )
        lines.append(f"  {k:3d} {name:{width}}  {100 * classes.pixel_share[k]:6.2f} % of pixels, {size}: {groups}")
    for name in classes.names:
        near = difflib.get_close_matches(plain_name(name), CITYSCAPES.names, n=1, cutoff=0.85)
        if near and plain_name(name) not in CITYSCAPES.names and len(near[0]) > 3:
            lines.append(f"  {name!r} is a class of its own; if it is Cityscapes' {near[0]!r}, spell it so")
    return lines
