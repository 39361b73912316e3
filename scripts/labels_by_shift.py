# SPDX-License-Identifier: Apache-2.0
"""Measures how right pseudo-labels are when the day view that refines them is moved aside.

    python scripts/labels_by_shift.py --workdir=runs/source
    python scripts/labels_by_shift.py --workdir='runs/source-seed?' --shifts=0,0.02,0.1 --pairs=200

NightStreet draws streets by night and by day with their labels and the true flow between them, other streets than
those of training. A run's network labels the nights alone, and with DSR's refinement by day views that are moved to
either side by a share of their width, taken as they are or brought back by the true flow. The table has the pixel
accuracy and the mIoU of these pseudo-labels; several runs, such as seeds, become mean ± standard deviation.
"""

import glob
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.progress import Progress
from nightjax.data import transforms
from nightjax.methods.parts.refinement import DayRefinement
from nightjax.metrics import confusion
from nightjax.metrics.table import format_value
from nightjax.nightstreet import PRESETS, SPLITS
from nightjax.nightstreet.pairs import render_pair
from nightjax.ops.resize import resize
from nightjax.run import loaded

GROUPS = ("static", "small", "dynamic")
ALONE = "night alone"


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_list("workdir", None, "Folders of the runs, or patterns of them.", flag_values=values)
    flags.DEFINE_enum("preset", "std", sorted(PRESETS), "NightStreet's size.", flag_values=values)
    flags.DEFINE_integer("pairs", 100, "Pairs of views.", lower_bound=1, flag_values=values)
    flags.DEFINE_list("shifts", ["0", "0.01", "0.02", "0.04", "0.08", "0.16"], "Shares of a width.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    cli.use_compilation_cache()
    shifts = [_share(word) for word in values.shifts]
    folders = [path for pattern in values.workdir for path in sorted(glob.glob(pattern)) or [pattern]]
    runs = [loaded.load(folder) for folder in folders]
    if other := [run for run in runs if run.classes.names != runs[0].classes.names]:
        raise UserError(f"{other[0].workdir} has other classes than {folders[0]}: compare runs of one class set")
    found: dict[str, list[np.ndarray]] = {}
    first = SPLITS["target_pairs"].first_seed + PRESETS[values.preset].counts["target_pairs"]
    for seed in Progress(range(first, first + values.pairs), desc="pairs", unit="pair"):
        pair = _pair(seed, values.preset)
        for number, run in enumerate(runs):
            for name, label in _labels(run, pair, shifts):
                counts = found.setdefault(name, [np.zeros((len(run.classes),) * 2, np.int64) for _ in runs])
                counts[number] += np.asarray(
                    confusion.confusion_counts(pair["label"], label, len(run.classes)), np.int64
                )
    print("\n".join(_table(found, runs[0].classes)))


def _pair(seed: int, preset: str) -> dict[str, Any]:
    """A night and a day with the night's labels and the flow between them; and the side to move the day to."""
    drawn = render_pair(seed, size=PRESETS[preset].size)
    return {
        "image": drawn["night"]["image"],
        "reference": drawn["day"]["image"],
        "label": drawn["night"]["label"][None],
        "flow": drawn["flow"],
        "flow_valid": drawn["flow_valid"],
        "side": 1 if seed % 2 else -1,
    }


def _labels(run: loaded.Run, pair: dict[str, Any], shifts: Sequence[float]) -> Iterator[tuple[str, np.ndarray]]:
    """The pseudo-labels of one night, int [1, H, W], by the name of their row."""
    size = pair["label"].shape[1:]
    night = resize(run.predict_fn(pair["image"][None]), size, align_corners=False)
    yield ALONE, np.asarray(night.argmax(-1))
    for shift in shifts:
        fields = {name: pair[name] for name in ("image", "reference", "flow", "flow_valid")}
        moved = transforms.shift_reference(fields, pair["side"] * round(shift * size[1]))
        batch = {name: value[None] for name, value in moved.items()}
        day = resize(run.predict_fn(batch["reference"]), size, align_corners=False)
        for title, refine in (("", DayRefinement()), (", true flow", DayRefinement("true_flow"))):
            scores = refine({}, batch, night, day, run.classes)
            yield f"moved by {100 * shift:g} %{title}", np.asarray(scores.argmax(-1))


def _table(found: dict[str, list[np.ndarray]], classes: Any) -> list[str]:
    """Markdown: a row for each kind of pseudo-label, the unrefined ones first."""
    lines = [f"| pseudo-labels | accuracy | mIoU | {' | '.join(GROUPS)} |", "|---" + "|--:" * 5 + "|"]
    for name, counts in found.items():
        groups = {group: classes.group(group) for group in GROUPS}
        scores = [confusion.summarize(one, classes.names, groups) for one in counts]
        cells = [[one["pa"] for one in scores], [one["miou"]["skip"] for one in scores]]
        cells += [[one["groups"][group] for one in scores] for group in GROUPS]
        lines.append(f"| {name} | {' | '.join(map(format_value, cells))} |")
    return lines


def _share(word: str) -> float:
    try:
        share = float(word)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"--shifts has {word!r}; give shares of the width from 0 to below 1, such as 0,0.02,0.1")
    return share


if __name__ == "__main__":
    cli.run(main)
