"""How wide NightStreet's domain gap is, and which factor of the night makes it.

    python scripts/nightstreet_gap.py --source=runs/source --exposure=runs/exposure --oracle=runs/oracle
    python scripts/nightstreet_gap.py --source=runs/source --factors

Draws ``test_night`` under other knobs (`nightjax.data.synthetic.presets`) and scores trained runs on it: S the source-only
network, E the one with exposure normalisation, O the oracle. "closed" is the share of the gap from S to O that E closes. An
oracle learnt the published night, so its column is filled for the gap ``std`` alone. Several seeds: ``--source=A,B,C``.
"""

import dataclasses
import functools

import numpy as np
from absl import flags

from nightjax import api
from nightjax.core import cli
from nightjax.core.types import NUM_CLASSES
from nightjax.data.builder import parallel_map
from nightjax.data.synthetic import GAPS, PRESETS, Knobs
from nightjax.data.synthetic.examples import example
from nightjax.metrics.confusion import iou_per_class

def mean_iou(model, drawn: list[dict]) -> float:
    """Percent, over the classes that truth or prediction has."""
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for view in drawn:
        label, prediction = view["label"], model.predict(view["image"]).label
        valid = label < NUM_CLASSES
        index = label[valid].astype(np.int64) * NUM_CLASSES + prediction[valid]
        counts += np.bincount(index, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)
    return 100 * float(np.nanmean(iou_per_class(counts)))


def settings(factors: bool) -> dict[str, Knobs]:
    """Rows of the table: the published gaps and, if asked for, the standard one less each factor."""
    rows = {f"gap {name}": knobs for name, knobs in GAPS.items()}
    if factors:
        std = GAPS["std"]
        off = {f"no {name}": {name: 0.0} for name in ("glare", "noise", "blur", "tint", "exposure_diversity", "prior_shift")}
        off |= {"ambient x 4": {"ambient": 4.0}, "lamps x 2": {"lamps": 2.0}}
        rows |= {name: dataclasses.replace(std, **change) for name, change in off.items()}
    return rows


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
    cli.parse(values, argv, required=("source",))
    runs = {"S": values.source, "E": values.exposure, "O": values.oracle}
    models = {name: [api.load(path) for path in paths] for name, paths in runs.items()}
    print("| night | S | E | O | S / O | closed by E |\n|---|---|---|---|---|---|")
    for name, knobs in settings(values.factors).items():
        draw = functools.partial(example, "test_night", size=PRESETS["std"].size, knobs=knobs)
        drawn = list(parallel_map(draw, range(values.count), desc=name))
        used = models if name == "gap std" else models | {"O": []}
        scores = {column: [mean_iou(model, drawn) for model in group] for column, group in used.items()}
        s, e, o = (np.mean(scores[c]) if scores[c] else np.nan for c in "SEO")
        share, closed = ("-" if np.isnan(v) else f"{100 * v:.0f} %" for v in (s / o, (e - s) / (o - s)))
        print(f"| {name} | {' | '.join(text(scores[c]) for c in 'SEO')} | {share} | {closed} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
