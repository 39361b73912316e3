# SPDX-License-Identifier: Apache-2.0
"""Choosing images of an unlabeled pool: by features, by brightness or at random, and the folder that says what was
chosen."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.core.config import suggestion
from nightjax.core.errors import UserError
from nightjax.core.files import read_text, write_whole
from nightjax.inference import overlay
from nightjax.metrics import fid
from nightjax.selection import brightness, coverage
from nightjax.selection.image_features import Describe
from nightjax.selection.images import ImageSet

RULES_WITHOUT_REFERENCE = ("his_dark", "random")
RULES_WITHOUT_FEATURES = (*RULES_WITHOUT_REFERENCE, "his_ref")
RULES = (*RULES_WITHOUT_FEATURES, *coverage.RULES)
SHEET_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was chosen of a pool.

    Attributes:
        names: of the pool.
        chosen: (name, score) of the chosen images, best first.
        frechet: Fréchet distance to the reference of the selection, of random ones (mean of 10) and of the whole pool;
            empty for rules that use no features.
    """

    names: list[str]
    chosen: coverage.Scored
    frechet: Mapping[str, float]


def check_rule(rule: str, reference: str) -> None:
    """Raises UserError for an unknown rule, or one that needs a reference where there is none."""
    if rule not in RULES:
        raise UserError(f"--rule={rule} is unknown{suggestion(rule, RULES)}")
    if rule not in RULES_WITHOUT_REFERENCE and not reference:
        raise UserError(f"--rule={rule} needs --reference, the images that the selection should resemble")


def choose(
    rule: str,
    count: int,
    pool: ImageSet,
    reference: ImageSet | None = None,
    *,
    describe: Describe | None = None,
    seed: int = 0,
) -> Choice:
    """Chooses images of a pool.

    Args:
        rule: one of `RULES`; see `coverage` for those that begin with ``fid_``.
        count: how many to choose.
        pool: to choose from.
        reference: what they should be like; ``his_dark`` and ``random`` need none.
        describe: features of images, for the ``fid_`` rules.
        seed: of the rule ``random``.

    Raises:
        UserError: the pool holds fewer images, or two of one name.
    """
    names = pool.names()
    if not 0 < count <= len(names):
        raise UserError(f"--count={count}, but the pool holds {len(names)} images")
    if rule == "random":
        order = np.random.default_rng(seed).permutation(len(names))[:count]
        return Choice(names, [(sorted(names)[i], 0.0) for i in order], {})
    if rule == "his_dark":
        gammas = [brightness.brightness(image) for image in pool.images()]
        return Choice(names, brightness.select_darkest(dict(zip(names, gammas, strict=True)), count), {})
    assert reference is not None
    if rule == "his_ref":
        mean = np.mean([brightness.luminance_histogram(image) for image in reference.images()], axis=0)
        histograms = [brightness.luminance_histogram(image) for image in pool.images()]
        by_name = dict(zip(names, histograms, strict=True))
        return Choice(names, brightness.select_by_histogram(by_name, mean, count), {})
    assert describe is not None
    return _by_features(rule, count, names, pool, reference, describe)


def _by_features(
    rule: str, count: int, names: list[str], pool: ImageSet, reference: ImageSet, describe: Describe
) -> Choice:
    features, wanted = (np.concatenate(list(describe(one.images()))) for one in (pool, reference))
    chosen = coverage.select(rule, names, features, wanted, count)
    whole = fid.statistics([wanted])

    def distance(index: Sequence[int] | np.ndarray) -> float:
        return fid.frechet_distance(fid.statistics([features[index]]), whole)

    position = {name: i for i, name in enumerate(names)}
    chance = [np.random.default_rng(seed).choice(len(names), len(chosen), replace=False) for seed in range(10)]
    frechet = {
        "selected": distance([position[name] for name, _ in chosen]),
        "random": float(np.mean([distance(index) for index in chance])),
        "pool": distance(np.arange(len(names))),
    }
    return Choice(names, chosen, frechet)


def write(
    folder: pathlib.Path, choice: Choice, pool: ImageSet, reference: ImageSet | None, record: Mapping[str, Any]
) -> None:
    """Writes the list, the record and the contact sheet: the best, the last chosen, left out, and the reference.

    Args:
        folder: gets selected.csv, selection.json and contact_sheet.png.
        choice: of `choose`.
        pool, reference: given to `choose`.
        record: facts for selection.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "selected.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("name", "score"), *((name, f"{score:.6g}") for name, score in choice.chosen)])
    facts = {**record, **({"frechet": choice.frechet} if choice.frechet else {}), "chosen": len(choice.chosen)}
    write_whole(folder / "selection.json", json.dumps(facts, indent=1) + "\n")
    position = {name: i for i, name in enumerate(choice.names)}
    rows = [position[name] for name, _ in choice.chosen]
    left = sorted(set(position.values()) - set(rows))
    columns = {"best": rows[:SHEET_ROWS], "last chosen": rows[-SHEET_ROWS:], "left out": _spread(left)}
    sheet = {title: [pool[i][1] for i in index] for title, index in columns.items() if index}
    if reference is not None:
        sheet["reference"] = [reference[i][1] for i in _spread(range(len(reference)))]
    write_whole(folder / "contact_sheet.png", overlay.encode_image(overlay.panel_grid(sheet, height=128)))


def read_list(path: str) -> list[str]:
    """Names of a selected.csv.

    Raises:
        UserError: no such file, or no list of names.
    """
    try:
        names = [row["name"] for row in csv.DictReader(io.StringIO(read_text(path)))]
    except (KeyError, csv.Error) as error:
        raise UserError(f"{path} is no selected.csv of nightjax select: {error}") from error
    if not names:
        raise UserError(f"{path} names no images")
    return names


def _spread(index: Sequence[int]) -> list[int]:
    """A few of them, evenly spread."""
    if not index:
        return []
    return [index[i] for i in np.unique(np.linspace(0, len(index) - 1, SHEET_ROWS).round().astype(int))]
