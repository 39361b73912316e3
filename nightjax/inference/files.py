# SPDX-License-Identifier: Apache-2.0
"""One image's labels as files: train ids, their colors and the overlay, each complete or not there."""

import json
from collections.abc import Callable, Iterable

import numpy as np
import PIL.Image
from etils import epath

from nightjax.core.class_section import described
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, first_line
from nightjax.core.files import write_whole
from nightjax.inference import overlay
from nightjax.inference.images import read_image
from nightjax.inference.inputs import CLASSES, LEGEND, RESULTS

Label = Callable[[np.ndarray], np.ndarray]
"""An image uint8 [H, W, 3] to the class of each of its pixels, uint8 [H, W]."""


def write_results(image: np.ndarray, label: np.ndarray, folder: epath.Path, name: str, classes: ClassSet) -> None:
    """Writes an image's train ids, their colors, and the overlay on the image.

    Args:
        image: uint8 [H, W, 3].
        label: uint8 [H, W].
        folder: to write to.
        name: of the results, possibly with folders: ``<name>_trainids.png``, ``_color.png`` and ``_overlay.jpg``.
        classes: of the network.
    """
    encoders = (
        lambda: overlay.encode_label(label),
        lambda: overlay.encode_palette(label, classes.colors),
        lambda: overlay.encode_photo(overlay.blend(image, label, palette=classes.colors), overwrite=True),
    )
    for end, encode in zip(RESULTS, encoders, strict=True):
        write_whole(folder / f"{name}{end}", encode())


def write_classes(folder: epath.Path, classes: ClassSet) -> None:
    """Writes what the masks in a folder mean: ``classes.json``, train id to name and color, and ``legend.png``.

    A folder of data reads that JSON as its ``labels.json``.
    """
    entries = {str(train_id): entry for train_id, entry in enumerate(described(classes))}
    write_whole(folder / CLASSES, (json.dumps(entries, indent=1) + "\n").encode())
    write_whole(folder / LEGEND, overlay.encode_image(overlay.legend(classes)))


def read_any(path: epath.Path) -> np.ndarray:
    """`read_image`, where whatever a decoder stumbles over is the file's fault.

    Raises:
        UserError: the image cannot be read.
    """
    try:
        return read_image(path)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Decoders raise many types for damaged files.
        raise UserError(f"{path} is damaged ({first_line(error)}): copy or download it again") from error


def is_newer(results: Iterable[epath.Path], than: float) -> bool:
    """Whether results are all there, and none is older than a time in seconds of the epoch."""
    results = list(results)
    return all(path.exists() for path in results) and min(path.stat().mtime for path in results) >= than


def read_mask(path: epath.Path) -> np.ndarray:
    """Train ids that were written as an image, uint8 [H, W]."""
    with path.open("rb") as file, PIL.Image.open(file) as image:
        return np.asarray(image)
