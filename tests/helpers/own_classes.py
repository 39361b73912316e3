"""A folder of days and nights with five classes of its own."""

import json

import cv2
import numpy as np

from tests.helpers import toy

NAMES = ("grass", "sky", "track", "deer", "sign")
VALUES = (10, 20, 30, 40, 50)
LABELS = {
    "10": "grass",
    "20": "sky",
    "30": "track",
    "40": {"name": "deer", "color": "#805020", "group": ["dynamic", "animals"]},
    "50": "sign",
    "0": "ignore",
}
COLORS = np.array([(40, 160, 40), (120, 170, 230), (150, 140, 130), (128, 80, 32), (230, 30, 30)])


def scene(seed):
    """Train ids [32, 48] uint8: sky over grass, a track, a few deer and signs, and a border of no class."""
    rng, (height, width) = np.random.default_rng(seed), toy.SIZE
    label = np.zeros((height, width), np.uint8)
    label[: height // 3] = 1
    left = int(rng.integers(4, width - 16))
    label[height // 3 :, left : left + 12] = 2
    for train_id, side in ((3, 5), (3, 5), (4, 2), (4, 2)):
        top, column = int(rng.integers(height // 3, height - 6)), int(rng.integers(width - 6))
        label[top : top + side, column : column + side] = train_id
    label[-1] = 255
    return label


def write(root, count=10):
    """``day`` and ``night`` of images, labels and references in a folder with a ``labels.json``."""
    values = np.zeros(256, np.uint8)
    values[: len(VALUES)] = VALUES
    for i in range(count):
        for k, split in enumerate(("day", "night")):
            label = scene(2 * i + k)
            image = np.where((label == 255)[..., None], 0, COLORS[np.minimum(label, 4)])
            image = image * (1.0, 0.25)[k] + np.random.default_rng(i).normal(0, 4, image.shape)
            image = np.clip(image, 0, 255).astype(np.uint8)[..., ::-1]
            for part, pixels in (("images", image), ("labels", values[label]), ("references", image)):
                (root / part / split).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / part / split / f"{i}.png"), pixels)
    (root / "labels.json").write_text(json.dumps(LABELS))
    return root


def config(root, method="supervised", **overrides):
    """A config of `toy` on such a folder: days are labeled, nights are not."""
    chosen = {"data__streams__source__split": "day", "eval__sets__val__split": "night"}
    if method != "supervised":
        chosen["data__streams__target__split"] = "night"
    return toy.config(root, method, steps=2, **chosen | overrides)
