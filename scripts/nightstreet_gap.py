"""How wide NightStreet's domain gap is, and which factor of the night makes it.

    python scripts/nightstreet_gap.py --source=runs/source --exposure=runs/exposure --oracle=runs/oracle
    python scripts/nightstreet_gap.py --source=runs/source --exposure=runs/exposure --oracle=runs/oracle --check
    python scripts/nightstreet_gap.py --source=runs/source --factors

Draws ``test_night`` under other knobs (`nightjax.nightstreet.presets`) and scores trained runs on it: S the
source-only network, E the one with exposure normalisation, O the oracle. "closed" is the share of the gap from S to O
that E closes. An oracle learnt the published night, so its column is filled for the night ``std`` alone. Several seeds:
``--source=A,B,C``.

``--check`` exits with 1 if the means of ``std`` leave the band that the benchmark is made for, and says where, a line a
number.
"""

import functools
import math
import sys

import numpy as np
from absl import flags

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.types import NUM_CLASSES
from nightjax.metrics import confusion
from nightjax.nightstreet import GAPS, NIGHTS, PRESETS, Knobs
from nightjax.nightstreet.examples import example
from nightjax.prepare.builder import parallel_map

STD = PRESETS["std"]
OF_PAIRS = ("no_pose_jitter", "no_dynamics")
"""Nights whose labelled images are those of ``std``."""

BAND = {
    "S by day": (50, math.inf),
    "O": (45, math.inf),
    "S / O": (25, 60),
    "closed by E": (15, 40),
}
"""Lowest and highest percentage of what the night ``std`` shall measure."""


def mean_iou(model: api.Model, drawn: list[dict]) -> float:
    """Percent, over the classes that truth or prediction has."""
    total = None
    for view in drawn:
        prediction = model.predict(view["image"]).label
        counts = confusion.confusion_counts(view["label"][None], prediction[None], NUM_CLASSES)
        total = confusion.accumulate(total, counts)
    return 100 * confusion.mean_iou(total)


def settings(factors: bool) -> dict[str, Knobs]:
    """Rows of the table: the published gaps and, if asked for, the standard one less each factor that a single image
    shows."""
    if not factors:
        return GAPS
    brighter = {"ambient x 4": Knobs(ambient=4.0), "lamps x 2": Knobs(lamps=2.0)}
    return {name: knobs for name, knobs in NIGHTS.items() if name not in OF_PAIRS} | brighter


def ratios(s: float, e: float, o: float) -> dict[str, float]:
    """Percentages that the table derives from its three scores."""
    return {"S / O": 100 * s / o, "closed by E": 100 * (e - s) / (o - s)}


def outside(measured: dict[str, float]) -> list[str]:
    """One line for every number that is not in `BAND`."""
    lines = []
    for name, (low, high) in BAND.items():
        if not low <= measured[name] <= high:
            wanted = f"at least {low}" if math.isinf(high) else f"{low} to {high}"
            lines.append(f"{name} is {measured[name]:.1f} %, not {wanted} %")
    return lines


def text(scores: list[float]) -> str:
    """Mean, and with several seeds their spread."""
    if not scores:
        return "-"
    return f"{np.mean(scores):.1f}" + (f" +- {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else "")


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_list("source", None, "Source-only runs (configs/supervised.py), one a seed.", flag_values=values)
    flags.DEFINE_list("exposure", [], "Source-only runs with exposure=1.", flag_values=values)
    flags.DEFINE_list("oracle", [], "Runs with train_on=oracle.", flag_values=values)
    flags.DEFINE_integer("count", 100, "Nights to draw.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("factors", False, "Also switch off each factor of the night by itself.", flag_values=values)
    flags.DEFINE_bool("check", False, "Exit with 1 if std leaves its band.", flag_values=values)
    cli.parse(values, argv, required=("source",))
    if values.check and not (values.exposure and values.oracle):
        raise UserError("--check compares three networks: give --exposure and --oracle, too")
    runs = {"S": values.source, "E": values.exposure, "O": values.oracle}
    models = {name: [api.load(path) for path in paths] for name, paths in runs.items()}
    print("| night | S | E | O | S / O | closed by E |\n|---|---|---|---|---|---|")
    measured = {}
    for name, knobs in settings(values.factors).items():
        draw = functools.partial(example, "test_night", size=STD.size, knobs=knobs)
        drawn = list(parallel_map(draw, range(values.count), desc=name))
        used = models if name == "std" else models | {"O": []}
        scores = {column: [mean_iou(model, drawn) for model in group] for column, group in used.items()}
        s, e, o = (np.mean(scores[c]) if scores[c] else np.nan for c in "SEO")
        derived = ratios(s, e, o)
        shares = ("-" if np.isnan(value) else f"{value:.0f} %" for value in derived.values())
        print(f"| {name} | {' | '.join(text(scores[c]) for c in 'SEO')} | {' | '.join(shares)} |", flush=True)
        if name == "std":
            measured |= derived | {"O": o}
    draw = functools.partial(example, "val_day", size=STD.size)
    drawn = list(parallel_map(draw, range(min(values.count, STD.counts["val_day"])), desc="day"))
    by_day = [mean_iou(model, drawn) for model in models["S"]]
    print(f"By day S has {text(by_day)}.")
    if values.check and (lines := outside(measured | {"S by day": float(np.mean(by_day))})):
        print("\n".join(lines))
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
