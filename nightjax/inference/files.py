"""One prediction as files: train ids, their colors and the overlay, each complete or not there."""

import json
from collections.abc import Callable

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
from nightjax.inference.predict import Prediction

Predict = Callable[[np.ndarray], Prediction]
"""uint8 [H, W, 3] to a prediction at the image's own size."""


def write_prediction(
    predict: Predict, path: epath.Path, folder: epath.Path, name: str, classes: ClassSet
) -> np.ndarray:
    """Segments one image file and writes its train ids, their colors, and the overlay on the image.

    Args:
        predict: of the network.
        path: of the image.
        folder: to write to.
        name: of the results, possibly with folders: ``<name>_trainids.png``, ``_color.png`` and ``_overlay.png``.
        classes: of the network.

    Returns:
        The train ids, uint8 [H, W].

    Raises:
        UserError: the image cannot be read.
    """
    image = read_any(path)
    label = predict(image).label
    encoders = (
        lambda: overlay.encode_label(label),
        lambda: overlay.encode_palette(label, classes.colors),
        lambda: overlay.encode_image(overlay.blend(image, label, palette=classes.colors), compression=1),
    )
    for end, encode in zip(RESULTS, encoders, strict=True):
        write_whole(folder / f"{name}{end}", encode())
    return label


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


def is_finished(path: epath.Path, folder: epath.Path, name: str, ends: tuple[str, ...] = RESULTS) -> bool:
    """Whether all results of a file are there and none is older than the file."""
    results = [folder / f"{name}{end}" for end in ends]
    if not all(result.exists() for result in results):
        return False
    return min(result.stat().mtime for result in results) >= path.stat().mtime


def read_label(folder: epath.Path, name: str) -> np.ndarray:
    """The train ids that `write_prediction` wrote, uint8 [H, W]."""
    with (folder / f"{name}{RESULTS[0]}").open("rb") as file, PIL.Image.open(file) as image:
        return np.asarray(image)
