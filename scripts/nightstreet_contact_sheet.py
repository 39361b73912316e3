"""Draws the contact sheet of NightStreet: a row a street; day, dusk, night, labels, night without its invalid pixels.

Usage: python scripts/nightstreet_contact_sheet.py [--output=docs/nightstreet.png] [--rows=4]
"""

import argparse

import numpy as np
from PIL import Image

from nightjax.core.classes import CITYSCAPES
from nightjax.nightstreet import SPLITS, Knobs, render

SIZE = (128, 256)
SHRINK = 0.65  # keeps the file small: noise does not compress


def street(index: int) -> np.ndarray:
    """One row, uint8 [128, 1280, 3] RGB."""
    seed = SPLITS["target_twilight"].first_seed + index
    shift = Knobs().prior_shift
    views = {
        time: render(seed, time, dynamic_seed=seed, sensor_seed=seed, size=SIZE, prior_shift=shift)
        for time in ("day", "twilight", "night")
    }
    night = views["night"]
    seen = np.where(night["invalid"][..., None] > 0, np.uint8(0), night["image"])
    return np.concatenate([*(view["image"] for view in views.values()), CITYSCAPES.colorize(night["label"]), seen], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="docs/nightstreet.png")
    parser.add_argument("--rows", type=int, default=4)
    arguments = parser.parse_args()
    sheet = np.concatenate([street(index) for index in range(arguments.rows)])
    size = round(SHRINK * sheet.shape[1]), round(SHRINK * sheet.shape[0])
    Image.fromarray(sheet).resize(size, Image.Resampling.BOX).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
