# SPDX-License-Identifier: Apache-2.0
"""How wide NightStreet's domain gap is, measured by trained networks, and the band that the benchmark is made for.

Three networks are compared: S, trained on labeled days alone; E, the same with exposure normalization; O, the oracle,
trained on labeled nights.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.core.parallel import parallel_map
from nightjax.metrics import confusion
from nightjax.metrics.counts import Confusion
from nightjax.nightstreet import GAPS, NIGHTS, PRESETS, WEATHERS, Knobs
from nightjax.nightstreet.examples import example

Predict = Callable[[np.ndarray], np.ndarray]
"""uint8 [H, W, 3] to train ids uint8 [H, W]."""

STD = PRESETS["std"]
OF_PAIRS = ("no_pose_jitter", "no_dynamics")
"""Nights whose labeled images are those of ``std``."""

HEAD = "| night | S | E | O | S / O | closed by E |\n|---|---|---|---|---|---|"
BAND = {
    "S by day": (50, math.inf),
    "O": (45, math.inf),
    "S / O": (25, 60),
    "closed by E": (15, 40),
}
"""Lowest and highest percentage that the night ``std`` should measure."""


@dataclasses.dataclass
class Gap:
    """The measurement of networks under several nights, and by day.

    Attributes:
        networks: S, E and O to the networks of its seeds; E and O may have none.
        score: of a network on drawn images, in percent.
        measured: what `rows` and `by_day` found for the night ``std``, by the names of `BAND`.
    """

    networks: Mapping[str, Sequence[Any]]
    score: Callable[[Any, list[dict[str, Any]]], float]
    measured: dict[str, float] = dataclasses.field(default_factory=dict)

    def rows(self, nights: Mapping[str, Knobs], count: int) -> Iterator[str]:
        """A row of the table for each night, scored on ``count`` images; O on ``std``, its own night, alone."""
        for name, knobs in nights.items():
            draw = functools.partial(example, "test_night", size=STD.size, knobs=knobs)
            drawn = list(parallel_map(draw, range(count), desc=name))
            used = self.networks if name == "std" else {**self.networks, "O": ()}
            scores = {column: [self.score(network, drawn) for network in group] for column, group in used.items()}
            s, e, o = (float(np.mean(scores[column])) if scores[column] else math.nan for column in "SEO")
            derived = ratios(s, e, o)
            shares = ("-" if np.isnan(value) else f"{value:.0f} %" for value in derived.values())
            if name == "std":
                self.measured.update(derived | {"O": o})
            yield f"| {name} | {' | '.join(text(scores[column]) for column in 'SEO')} | {' | '.join(shares)} |"

    def by_day(self, count: int) -> str:
        """A sentence with the score of S by day."""
        draw = functools.partial(example, "val_day", size=STD.size)
        drawn = list(parallel_map(draw, range(min(count, STD.counts["val_day"])), desc="day"))
        scores = [self.score(network, drawn) for network in self.networks["S"]]
        self.measured["S by day"] = float(np.mean(scores))
        return f"By day S has {text(scores)}."


def mean_iou(predict: Predict, drawn: Sequence[Mapping[str, Any]]) -> float:
    """Mean IoU in percent, over the classes that truth or prediction has."""
    total = Confusion.empty()
    for view in drawn:
        label, prediction = view["label"][None], predict(view["image"])[None]
        total = total.merge(
            Confusion.from_model_output(label=label, prediction=prediction, num_classes=len(CITYSCAPES))
        )
    return 100 * confusion.mean_iou(total.total)


def conditions(factors: bool, weathers: bool) -> dict[str, Knobs]:
    """The published nights; with ``factors``, the standard one less each factor that a single image shows; with
    ``weathers``, fog and rain too."""
    found = dict(GAPS)
    if factors:
        found |= {name: knobs for name, knobs in NIGHTS.items() if name not in OF_PAIRS}
        found |= {"ambient x 4": Knobs(ambient=4.0), "lamps x 2": Knobs(lamps=2.0)}
    return found | WEATHERS if weathers else found


def ratios(s: float, e: float, o: float) -> dict[str, float]:
    """S as a percentage of O, and the percentage of the gap from S to O that E closes; NaN where there is no gap."""
    gap = o - s
    return {"S / O": 100 * s / o if o else math.nan, "closed by E": 100 * (e - s) / gap if gap else math.nan}


def outside(measured: Mapping[str, float]) -> list[str]:
    """One line for every number that is not in `BAND`."""
    lines = []
    for name, (low, high) in BAND.items():
        if not low <= measured[name] <= high:
            wanted = f"at least {low}" if math.isinf(high) else f"{low} to {high}"
            lines.append(f"{name} is {measured[name]:.1f} %, not {wanted} %")
    return lines


def text(scores: Sequence[float]) -> str:
    """Mean, and with several seeds their standard deviation."""
    if not scores:
        return "-"
    return f"{np.mean(scores):.1f}" + (f" +- {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else "")
