"""What a method shows of its work, as one image file a step."""

from collections.abc import Mapping

import jax
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
    if jax.process_index() == 0:
        folder = workdir / "visualizations"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{step:07d}_train.png", encode_image(grid))
        writer.image(step, "train", grid)
