# SPDX-License-Identifier: Apache-2.0
"""Measures how much of small and of large objects runs find, class by class.

    python scripts/recall_by_size.py --workdir=runs/source,runs/dsr_fpa
    python scripts/recall_by_size.py --workdir='runs/dsr_fpa-seed?' --data=camvid --split=dusk_test --manual_dir=DIR
    python scripts/recall_by_size.py --workdir=runs/dsr_fpa --edges=10,100,1000 --classes=pole,rider

An object is a connected component of one class in the labels. The table has the percentage of the pixels of such
objects that have the right class in the prediction, by the number of their pixels. Several runs, such as seeds, are
several rows; their mean is not taken.
"""

import glob
from collections.abc import Sequence

import numpy as np
from absl import flags

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.progress import Progress
from nightjax.data import sources, transforms
from nightjax.metrics.components import recall, recall_counts


def main(argv: Sequence[str]) -> None:
    """Prints a table for each class."""
    values = flags.FlagValues()
    flags.DEFINE_list("workdir", None, "Folders of the runs, or patterns of them.", flag_values=values)
    flags.DEFINE_string("data", "nightstreet/std", "Data set.", flag_values=values)
    flags.DEFINE_string("split", "test_night", "Split with labels.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Folder of the official files.", flag_values=values)
    flags.DEFINE_list("classes", [], "Classes; by default those of the groups small and dynamic.", flag_values=values)
    flags.DEFINE_list("edges", ["32", "128", "512"], "Sizes in pixels between the columns.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    try:
        edges = sorted({int(edge) for edge in values.edges})
    except ValueError as error:
        raise UserError(f"--edges={','.join(values.edges)} must be sizes in pixels, such as 32,128,512") from error
    folders = [path for pattern in values.workdir for path in sorted(glob.glob(pattern)) or [pattern]]
    models = {folder: api.load(folder) for folder in folders}
    known = next(iter(models.values())).classes
    if other := [folder for folder, model in models.items() if model.classes.names != known.names]:
        raise UserError(f"{other[0]} has other classes than {folders[0]}: compare runs of one class set")
    wanted = [known.names.index(name) for name in _check(values.classes, known.names)] or sorted(
        {*known.group("small"), *known.group("dynamic")}
    )
    source = sources.open_source(values.data, values.split, manual_dir=values.manual_dir)
    if source.classes.names != known.names:
        raise UserError(f"{values.data} has other classes than the runs: give labels of the runs' classes")
    counts = {folder: np.zeros((len(wanted), len(edges) + 1, 3), np.int64) for folder in folders}
    for index in Progress(range(len(source)), desc=values.split, unit="image"):
        example = transforms.decode(source[index], ("image", "label"), len(known))
        for folder, model in models.items():
            label = model.label(example["image"])
            counts[folder] += recall_counts(example["label"], label, wanted, edges)
    print("\n".join(_table(counts, [known.names[i] for i in wanted], edges)))


def _check(names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in known:
            raise UserError(f"--classes: there is no class {name!r}; choose from {', '.join(known)}")
    return names


def _table(counts: dict[str, np.ndarray], names: Sequence[str], edges: Sequence[int]) -> list[str]:
    """Markdown: a row a class and run."""
    heads = [
        f"below {edges[0]}",
        *(f"{a} to {b - 1}" for a, b in zip(edges, edges[1:], strict=False)),
        f"from {edges[-1]}",
    ]
    lines = [f"| class | run | {' | '.join(heads)} | all |", "|---|---|" + "--:|" * (len(heads) + 1)]
    for row, name in enumerate(names):
        for folder, found in counts.items():
            cells = [*recall(found[row]), recall(found[row].sum(0))]
            text = ["-" if np.isnan(cell) else f"{cell:.1f}" for cell in cells]
            lines.append(f"| {name} | {folder} | {' | '.join(text)} |")
    numbers = next(iter(counts.values()))[..., 0]
    lines += [
        f"| {name} | objects | {' | '.join(map(str, [*row, row.sum()]))} |"
        for name, row in zip(names, numbers, strict=True)
    ]
    return lines


if __name__ == "__main__":
    cli.run(main)
