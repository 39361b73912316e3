# SPDX-License-Identifier: Apache-2.0
"""What a method shows of its work, as one image file a step."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from etils import epath

from nightjax.core.classes import ClassSet
from nightjax.core.files import write_whole
from nightjax.core.sharding import local_rows
from nightjax.core.writers import Writer
from nightjax.inference.overlay import encode_image, panel_grid

ORDER = (
    "image",
    "source",
    "augmented",
    "truth",
    "target",
    "reference",
    "pseudo_label",
    "confidence",
    "mixed",
    "mixed_label",
    "mixed_weight",
    "prediction",
)
"""Columns from left to right; others follow."""

EVALUATED_HEIGHT = 270
"""Rows of an evaluated image in the report, at most."""


def write_visualizations(
    images: Mapping[str, jax.Array],
    workdir: epath.Path,
    step: int,
    writer: Writer,
    classes: ClassSet,
    examples: int = 4,
) -> None:
    """Writes ``visualizations/<step>_train.png`` and adds it to the events.

    Args:
        images: caption to [B, H, W, 3] or [B, H, W]; see `Method.visualize`.
        workdir: of the run.
        step: of the state they show.
        writer: of the run.
        classes: of the images that are labels.
        examples: rows at most; each process knows only its own, and the first process writes.
    """
    names = [name for name in ORDER if name in images] + [name for name in images if name not in ORDER]
    grid = panel_grid({name: list(local_rows(images[name])[:examples]) for name in names}, classes=classes)
    _write(grid, workdir, step, "train", writer)


def write_evaluated(
    panels: Mapping[str, Mapping[str, Sequence[np.ndarray]]],
    workdir: epath.Path,
    step: int,
    writer: Writer,
    classes: ClassSet,
) -> None:
    """Writes ``visualizations/<step>_eval_<set>.png`` of each set and adds it to the events.

    Args:
        panels: set to caption to images, as `Evaluator.panels` gives them.
        workdir: of the run.
        step: of the evaluation.
        writer: of the run.
        classes: of the images that are labels.
    """
    for name, columns in panels.items():
        height = min(columns["image"][0].shape[0], EVALUATED_HEIGHT)
        _write(panel_grid(columns, classes=classes, height=height), workdir, step, f"eval_{name}", writer)


def _write(grid: np.ndarray, workdir: epath.Path, step: int, name: str, writer: Writer) -> None:
    if jax.process_index() == 0:
        folder = workdir / "visualizations"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{step:07d}_{name}.png", encode_image(grid))
        writer.image(step, name, grid)
