# SPDX-License-Identifier: Apache-2.0
"""Draws the contact sheet of NightStreet: a row a street; day, dusk, night, labels, night without its invalid pixels.

python scripts/nightstreet_contact_sheet.py
python scripts/nightstreet_contact_sheet.py --output=docs/nightstreet.png --rows=4
python scripts/nightstreet_contact_sheet.py --weathers --output=docs/nightstreet_weather.jpg --rows=4

With --weathers, a row shows night, a clear day, fog, rain, fog by night and rain by night.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags
from PIL import Image

from nightjax.core import cli
from nightjax.core.classes import CITYSCAPES
from nightjax.nightstreet import CONDITIONS, SPLITS, WEATHERS, Knobs, render
from nightjax.nightstreet.examples import example

SIZE = (128, 256)
SHRINK = 0.65  # Keeps the file small: noise does not compress.


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


def weathers(index: int) -> np.ndarray:
    """One street of ``test_night`` under the published night and every weather, uint8 [128, 1536, 3] RGB."""
    draw = lambda name: example("test_night", index, size=SIZE, knobs=CONDITIONS[name])["image"]
    return np.concatenate([draw(name) for name in ("std", *WEATHERS)], 1)


def main(argv: Sequence[str]) -> None:
    """Draws the sheet."""
    values = flags.FlagValues()
    flags.DEFINE_string("output", "docs/nightstreet.png", "File to write.", flag_values=values)
    flags.DEFINE_integer("rows", 4, "Streets to draw.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("weathers", False, "Draw fog and rain instead.", flag_values=values)
    cli.parse(values, argv, __doc__)
    row = weathers if values.weathers else street
    sheet = np.concatenate([row(index) for index in range(values.rows)])
    size = round(SHRINK * sheet.shape[1]), round(SHRINK * sheet.shape[0])
    Image.fromarray(sheet).resize(size, Image.Resampling.BOX).save(values.output, optimize=True)


if __name__ == "__main__":
    cli.run(main)
