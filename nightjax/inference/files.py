"""Predictions of image files, written as files."""

import json
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import PIL.Image
from etils import epath

from nightjax.core.class_section import described
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.inference import overlay
from nightjax.inference.images import find_images, read_image
from nightjax.inference.predict import Prediction


def output_names(inputs: Sequence[str]) -> dict[str, epath.Path]:
    """Name to write to, without suffix, to image: relative to the input folder that holds it.

    Raises:
        UserError: an input does not exist or holds no image, or two images would be written to one name.
    """
    named = {}
    for given in map(epath.Path, inputs):
        for path in find_images(given):
            inside = path.relative_to(given) if given.is_dir() else path.name
            name = str(pathlib.PurePosixPath(inside).with_suffix(""))
            if named.setdefault(name, path) != path:
                raise UserError(
                    f"{named[name]} and {path} would both be written as {name}_*.png: rename one of them, or predict "
                    "them into different --output folders"
                )
    return named


def image_sizes(paths: Iterable[epath.Path]) -> list[tuple[int, int]]:
    """(width, height) from the files' headers; files that are no image are passed over."""
    sizes = []
    for path in paths:
        try:
            with path.open("rb") as file, PIL.Image.open(file) as image:
                sizes.append(image.size)
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
            continue
    return sizes


def write_prediction(
    predict: Callable[[np.ndarray], Prediction], path: epath.Path, folder: epath.Path, name: str, classes: ClassSet
) -> None:
    """Segments one image file and writes its train ids, their colors, and the overlay on the image.

    Args:
        predict: uint8 [H, W, 3] to a prediction at the image's own size.
        path: of the image.
        folder: to write to.
        name: of the results, possibly with folders: ``<name>_trainids.png``, ``_color.png`` and ``_overlay.png``.
        classes: whose colors to take.
    """
    image = read_image(path)
    label = predict(image).label
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_trainids.png").write_bytes(overlay.encode_label(label))
    (folder / f"{name}_color.png").write_bytes(overlay.encode_palette(label, classes.colors))
    blended = overlay.blend(image, label, palette=classes.colors)
    (folder / f"{name}_overlay.png").write_bytes(overlay.encode_image(blended))


def write_classes(folder: epath.Path, classes: ClassSet) -> None:
    """Writes what the masks in a folder mean: ``classes.json``, train id to name and color, and ``legend.png``.

    A folder of data reads that JSON as its ``labels.json``.
    """
    entries = {str(train_id): entry for train_id, entry in enumerate(described(classes))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps(entries, indent=1) + "\n")
    (folder / "legend.png").write_bytes(overlay.encode_image(overlay.legend(classes)))
