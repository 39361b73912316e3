# SPDX-License-Identifier: Apache-2.0
"""Class sets: names, colors, groups and label values of the classes that a network tells apart.

A *train id* is the position of a class in its set; 255 means "no class". Label files may hold other values, such as
Cityscapes' *label ids* 0..33; every table from values to train ids is ``uint8[256]`` and total, so ``table[label]``
never fails and unknown values become 255. How one set's classes merge into another's: `core.class_merges`.
"""

import colorsys
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE

MOST = IGNORE - 1
"""Largest number of classes: train ids are one byte, and 255 is no class."""

KINDS = ("static", "small", "dynamic")
"""Groups that say how a class behaves: whether the day view of a place tells where it is at night."""

ROLES = ("thing", "rare")
"""Groups that parts of methods read and that no score is averaged over: what the feature distance compares, and what
the rare-class bank pastes."""

Color = tuple[int, int, int]


def lookup_table(pairs: Mapping[int, int], default: int = IGNORE) -> np.ndarray:
    """A total ``uint8[256]`` table of the pairs, ``default`` elsewhere."""
    table = np.full(256, default, np.uint8)
    for key, value in pairs.items():
        table[key] = value
    table.setflags(write=False)
    return table


def plain_name(name: str) -> str:
    """A class name without what people spell differently: ``"Traffic_Light"`` is ``"traffic light"``."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


@dataclasses.dataclass(frozen=True)
class ClassSet:
    """The classes that a network tells apart.

    Attributes:
        names: in train-id order, 1 to 254, all different.
        palette: RGB color of each class, 0..255.
        ids: value of each class in the set's own label files; the train ids by default.
        groups: name of a group to its train ids; see `KINDS` and `ROLES`, and any others.
        pixel_share: share of each class in the labeled pixels of a training set; empty if unknown.
        companions: classes that form one object: where one of the first is pasted, the second come along.
        name: of the set, such as ``"cityscapes"`` or the name of a folder.

    Raises:
        UserError: there are no classes or more than 254, two have one name, or another field has another length.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    ids: tuple[int, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict, hash=False)
    pixel_share: tuple[float, ...] = ()
    companions: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    name: str = "own"

    def __post_init__(self):
        where = f"class set {self.name!r}"
        if not 1 <= len(self.names) <= MOST:
            raise UserError(f"{where} has {len(self.names)} classes: give 1 to {MOST}")
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise UserError(f"{where} has two classes {twice[0]!r}: give each another name")
        for field, optional in (("palette", False), ("ids", True), ("pixel_share", True)):
            given = getattr(self, field)
            if len(given) != len(self.names) and (given or not optional):
                raise UserError(f"{where} has {len(self.names)} names and {len(given)} entries in {field}")

    def __len__(self) -> int:
        return len(self.names)

    def group(self, *names: str) -> tuple[int, ...]:
        """Train ids of all classes in the named groups, in increasing order; a group that is not there is empty."""
        return tuple(sorted({train_id for name in names for train_id in self.groups.get(name, ())}))

    def outside(self, *names: str) -> tuple[int, ...]:
        """Train ids of all classes in none of the named groups, in increasing order."""
        return tuple(k for k in range(len(self)) if k not in self.group(*names))

    @property
    def scored_groups(self) -> dict[str, tuple[int, ...]]:
        """The groups that scores are averaged over: all that have classes but `ROLES`."""
        return {name: tuple(ids) for name, ids in self.groups.items() if name not in ROLES and ids}

    def same_classes(self, other: "ClassSet") -> bool:
        """Whether a train id means the same class in both sets."""
        return self.names == other.names

    @functools.cached_property
    def colors(self) -> np.ndarray:
        """uint8[256, 3]: RGB of each train id; every other value is black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        table.setflags(write=False)
        return table

    @functools.cached_property
    def from_ids(self) -> np.ndarray:
        """uint8[256]: value in the set's label files to train id; anything unknown becomes 255."""
        return lookup_table({value: train_id for train_id, value in enumerate(self.ids or range(len(self)))})

    @functools.cached_property
    def to_ids(self) -> np.ndarray:
        """uint8[256]: train id to the value in the set's label files; 255 becomes 0."""
        return lookup_table(dict(enumerate(self.ids or range(len(self)))), default=0)

    def colorize(self, label: np.ndarray) -> np.ndarray:
        """Train ids, integer [...], to their colors, uint8 [..., 3]; 255 is black."""
        return self.colors[label]


@dataclasses.dataclass(frozen=True)
class LabelCodes:
    """How the label files of one data set spell the classes of a class set.

    A value or color that somebody named as void is 255 here on purpose. One that nobody named becomes 255 too, but it
    is reported: see `unnamed`.

    Attributes:
        values: value of a gray file or index of a palette file, 0..65535, to train id or 255.
        colors: RGB of a color file, to train id or 255.
    """

    values: Mapping[int, int] = dataclasses.field(default_factory=dict, hash=False)
    colors: Mapping[Color, int] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def of_train_ids(cls, count: int) -> "LabelCodes":
        """Files that hold the train ids of ``count`` classes themselves, and 255."""
        return cls({**{train_id: train_id for train_id in range(count)}, IGNORE: IGNORE})

    @classmethod
    def of_table(cls, table: np.ndarray, voids: Collection[int] = (IGNORE,)) -> "LabelCodes":
        """Files whose values a uint8[256] table converts; of those that it makes 255, the ``voids`` are meant so."""
        named = {int(value): int(table[value]) for value in np.flatnonzero(table != IGNORE)}
        return cls({**dict.fromkeys(voids, IGNORE), **named})

    @property
    def train_ids(self) -> frozenset[int]:
        """The train ids that files can hold."""
        return frozenset((*self.values.values(), *self.colors.values())) - {IGNORE}

    def table(self, size: int = 256) -> np.ndarray:
        """uint8[size]: stored value to train id, total; 255 for what is void and for what nobody named."""
        table = np.full(size, IGNORE, np.uint8)
        for value, train_id in self.values.items():
            if value < size:
                table[value] = train_id
        table.setflags(write=False)
        return table

    def unnamed(self, counts: np.ndarray) -> tuple[int, ...]:
        """Values that occur and that nobody named.

        Args:
            counts: int [256] or longer, how often each value occurs in one label file or in many.
        """
        return tuple(value for value in np.flatnonzero(counts).tolist() if value not in self.values)

    def unnamed_colors(self, colors: Collection[Color]) -> tuple[Color, ...]:
        """Those of some colors that nobody named."""
        return tuple(color for color in colors if tuple(color) not in self.colors)

    def renumbered(self, table: np.ndarray) -> "LabelCodes":
        """The codes after a uint8[256] table from these train ids to those of another set."""
        new = lambda codes: {code: int(table[train_id]) for code, train_id in codes.items()}
        return LabelCodes(new(self.values), new(self.colors))


# Name, label id, RGB, share of the labeled pixels of the training split; one row a train id. Ids and colors:
# cityscapesScripts, helpers/labels.py. Shares: DANNet's published constants.
_CITYSCAPES = (
    ("road", 7, (128, 64, 128), 0.36869696),
    ("sidewalk", 8, (244, 35, 232), 0.06084986),
    ("building", 11, (70, 70, 70), 0.22824049),
    ("wall", 12, (102, 102, 156), 0.00655399),
    ("fence", 13, (190, 153, 153), 0.00877272),
    ("pole", 17, (153, 153, 153), 0.01227341),
    ("traffic light", 19, (250, 170, 30), 0.00207795),
    ("traffic sign", 20, (220, 220, 0), 0.0055127),
    ("vegetation", 21, (107, 142, 35), 0.15928651),
    ("terrain", 22, (152, 251, 152), 0.01157818),
    ("sky", 23, (70, 130, 180), 0.04018982),
    ("person", 24, (220, 20, 60), 0.01218957),
    ("rider", 25, (255, 0, 0), 0.00135122),
    ("car", 26, (0, 0, 142), 0.06994545),
    ("truck", 27, (0, 0, 70), 0.00267456),
    ("bus", 28, (0, 60, 100), 0.00235192),
    ("train", 31, (0, 80, 100), 0.00232904),
    ("motorcycle", 32, (0, 0, 230), 0.00098658),
    ("bicycle", 33, (119, 11, 32), 0.00413907),
)

CITYSCAPES = ClassSet(
    names=tuple(name for name, *_ in _CITYSCAPES),
    palette=tuple(color for _, _, color, _ in _CITYSCAPES),
    ids=tuple(label_id for _, label_id, *_ in _CITYSCAPES),
    groups={
        # Of DSR+FPA, from the results table of its project page.
        "static": (0, 1, 2, 3, 4, 8, 9, 10),
        "small": (5, 6, 7),
        "dynamic": (11, 12, 13, 14, 15, 16, 17, 18),
        # Of DAFormer's feature distance: traffic light, traffic sign, person to bicycle.
        "thing": (6, 7, 11, 12, 13, 14, 15, 16, 17, 18),
        # Of the bank in DSR+FPA's official code, which leaves out train, 16.
        "rare": (12, 14, 15, 17, 18),
    },
    pixel_share=tuple(share for *_, share in _CITYSCAPES),
    # Of DSR's `get_dynamic_masks`: light or sign brings the pole, the pole both, a rider bicycle and motorcycle.
    companions=(((6, 7), (5,)), ((5,), (6, 7)), ((12,), (17, 18))),
    name="cityscapes",
)
"""The 19 classes of Cityscapes. A day reference says nothing about where the ``dynamic`` ones are at night."""

# Name, RGB (of the official 32-color files), groups; one row an id of the SegNet copy, in which 11 is "unlabelled".
_CAMVID = (
    ("Sky", (128, 128, 128), ("static",)),
    ("Building", (128, 0, 0), ("static",)),
    ("Pole", (192, 192, 128), ("small",)),
    ("Road", (128, 64, 128), ("static",)),
    ("Pavement", (0, 0, 192), ("static",)),
    ("Tree", (128, 128, 0), ("static",)),
    ("SignSymbol", (192, 128, 128), ("small", "thing")),
    ("Fence", (64, 64, 128), ("static",)),
    ("Car", (64, 0, 128), ("dynamic", "thing")),
    ("Pedestrian", (64, 64, 0), ("dynamic", "thing")),
    ("Bicyclist", (0, 128, 192), ("dynamic", "thing")),
)

CAMVID = ClassSet(
    names=tuple(name for name, *_ in _CAMVID),
    palette=tuple(color for _, color, _ in _CAMVID),
    groups={
        group: tuple(k for k, (*_, groups) in enumerate(_CAMVID) if group in groups) for group in (*KINDS, "thing")
    },
    companions=(((6,), (2,)), ((2,), (6,))),
    name="camvid",
)
"""The 11 classes of the SegNet copy of CamVid."""

CLASS_SETS = {classes.name: classes for classes in (CITYSCAPES, CAMVID)}
"""The sets that have a name everywhere."""


def palette_for(names: Sequence[str], given: Mapping[str, Color] | None = None) -> tuple[Color, ...]:
    """A color for every class: the given one, else that of the Cityscapes class of this name, else a free one.

    The free ones depend on the order of the names alone, and none of them is taken, or the black of "no class".

    Args:
        names: of the classes.
        given: name to color.
    """
    known = dict(zip(CITYSCAPES.names, CITYSCAPES.palette, strict=True))
    fixed = {name: known[plain_name(name)] for name in names if plain_name(name) in known} | dict(given or {})
    taken, number, colors = {(0, 0, 0), *fixed.values()}, 0, []
    for name in names:
        color = fixed.get(name)
        while color is None:
            candidate = _numbered_color(number)
            number += 1
            color = None if candidate in taken else candidate
        taken.add(color)
        colors.append(color)
    return tuple(colors)


def _numbered_color(number: int) -> Color:
    """Hues a golden angle apart, in three levels of lightness and two of saturation."""
    hue = (0.08 + number * 0.6180339887) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.5, 0.68, 0.34)[number % 3], (0.85, 0.55)[number // 3 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def companions_for(names: Sequence[str]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """`ClassSet.companions` by name, of the classes that bear Cityscapes' names."""
    own = {plain_name(name): k for k, name in enumerate(names)}
    there = lambda ids: tuple(own[CITYSCAPES.names[k]] for k in ids if CITYSCAPES.names[k] in own)
    pairs = ((there(causes), there(added)) for causes, added in CITYSCAPES.companions)
    return tuple((causes, added) for causes, added in pairs if causes and added)


def groups_by_name(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Cityscapes' `KINDS` and ``"thing"`` of the classes that bear Cityscapes' names."""
    own = {plain_name(name): k for k, name in enumerate(names)}
    return {
        group: tuple(sorted(own[CITYSCAPES.names[k]] for k in CITYSCAPES.groups[group] if CITYSCAPES.names[k] in own))
        for group in (*KINDS, "thing")
    }
