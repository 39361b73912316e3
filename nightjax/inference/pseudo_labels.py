# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels of a trained network as a plain folder that trains like any labeled data set."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nightjax.core.class_section import described
from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.files import write_whole
from nightjax.core.types import IGNORE
from nightjax.data.labels import class_pixels
from nightjax.inference import overlay
from nightjax.inference.predict import Prediction


def write_pseudo_labels(
    predict: Callable[[np.ndarray], Prediction],
    images: Iterable[tuple[str, np.ndarray]],
    folder: pathlib.Path,
    *,
    split: str = "train",
    threshold: float = 0.0,
    record: Mapping[str, Any],
    classes: ClassSet = CITYSCAPES,
) -> int:
    """Writes ``images/``, ``labels/``, the list of the split and ``pseudo_labels.json``, which says what made them.

    Labels are train ids; ``labels.json`` says of which classes, unless these are Cityscapes'.

    Args:
        predict: uint8 [H, W, 3] to a prediction at the image's own size.
        images: (name, uint8 [H, W, 3]) of every image to label.
        folder: to write to.
        split: whose list the names go into.
        threshold: least probability of a label; pixels below become 255.
        record: facts for ``pseudo_labels.json``, beside the number of label files (``labels``) and the pixels of each
            class.
        classes: of the network.

    Returns:
        How many images were labeled.
    """
    names, counts = [], np.zeros(len(classes), np.int64)
    for name, image in images:
        prediction = predict(image)
        label = np.where(prediction.confidence >= threshold, prediction.label, np.uint8(IGNORE))
        counts += class_pixels(label, len(classes))
        for part, data in (("images", overlay.encode_image(image)), ("labels", overlay.encode_label(label))):
            write_whole(folder / part / f"{name}.png", data)
        names.append(name)
    write_whole(folder / "lists" / f"{split}.txt", "".join(f"{name}\n" for name in names))
    pixels = dict(zip(classes.names, counts.tolist(), strict=True))
    if not classes.same_classes(CITYSCAPES):
        named = {str(train_id): entry for train_id, entry in enumerate(described(classes))}
        content = {"classes": classes.names, **named, str(IGNORE): "ignore"}
        write_whole(folder / "labels.json", json.dumps(content, indent=1) + "\n")
    facts = {**record, "labels": len(names), "pixels": pixels}
    write_whole(folder / "pseudo_labels.json", json.dumps(facts, indent=1) + "\n")
    return len(names)
