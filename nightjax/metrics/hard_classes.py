# SPDX-License-Identifier: Apache-2.0
"""Which classes NightLab's region level handles: those that the image level is worst at.

Source: arXiv 2204.05538, supplementary, section D and table 1. The IoUs must not come from the set that is reported;
the paper's seem to come from its test set.
"""

import math
import os
from collections.abc import Sequence

from etils import epath

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.files import read_json

PUBLISHED = {
    0.3: (9,),
    0.4: (5, 6, 9, 12, 17),
    0.5: (5, 6, 9, 12, 17, 18),
    0.6: (1, 3, 5, 6, 9, 12, 17, 18),
}
"""Threshold to train ids, of a network trained on NightCity+ and Cityscapes; the paper chooses 0.5."""


def select_hard_classes(iou: Sequence[float | None], threshold: float, strict: bool = True) -> tuple[int, ...]:
    """Train ids of the classes below a threshold.

    Args:
        iou: of each class, 0..1; None or NaN for a class that does not occur, which is not hard.
        threshold: 0..1.
        strict: whether a class at the threshold is not hard.
    """
    known = ((c, value) for c, value in enumerate(iou) if value is not None and not math.isnan(value))
    return tuple(c for c, value in known if value < threshold or (value == threshold and not strict))


def from_evaluation(
    workdir: str | os.PathLike, eval_set: str, threshold: float, names: Sequence[str] = CITYSCAPES.names
) -> tuple[int, ...]:
    """Hard classes by the newest evaluation of a run on one set.

    Args:
        workdir: of the run.
        eval_set: of the run.
        threshold: 0..1.
        names: of the classes, in train-id order.

    Raises:
        UserError: there is no such evaluation, or no class is below the threshold.
    """
    folder = epath.Path(workdir) / "eval" / eval_set
    files = sorted(folder.glob("*.json"), key=lambda path: path.name)
    if not files:
        raise UserError(
            f"{folder} holds no evaluation to choose hard classes by; train {workdir} to its end, or evaluate it"
        )
    remedy = f"evaluate {workdir} again"
    scores = read_json(files[-1], dict, remedy).get("iou")
    number = lambda one: one is None or (isinstance(one, int | float) and 0 <= one <= 100)
    if not isinstance(scores, dict) or not all(map(number, scores.values())):
        raise UserError(f"{files[-1]} is not an evaluation (no IoU of each class from 0 to 100): {remedy}")
    iou = [None if scores.get(name) is None else scores[name] / 100 for name in names]
    found = select_hard_classes(iou, threshold)
    if not found:
        raise UserError(f"{files[-1]}: no class is below an IoU of {threshold}; raise tau")
    return found
