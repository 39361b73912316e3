# SPDX-License-Identifier: Apache-2.0
"""Draws docs/images/results.png: nights, what two runs make of them, and the truth.

nightjax train --config=supervised --workdir=runs/source
nightjax train --config=dsr_fpa --workdir=runs/dsr_fpa
python docs/site/draw_results.py runs/source runs/dsr_fpa
"""

import pathlib
import sys

from nightjax import api
from nightjax.data import sources, transforms
from nightjax.inference.overlay import encode_image, panel_grid

SHOWN = (3, 11, 42)
"""Positions in test_night, the same for every network."""


def draw(source_only: str, adapted: str) -> None:
    """Writes the image.

    Args:
        source_only: run folder of the network trained on days.
        adapted: run folder of the adapted network.
    """
    nights = sources.open_source("nightstreet/std", "test_night")
    examples = [transforms.decode(nights[index], ("image", "label")) for index in SHOWN]
    columns = {"night": [example["image"] for example in examples]}
    for title, run in (("source-only", source_only), ("adapted (DSR+FPA)", adapted)):
        model = api.load(run)
        columns[title] = [model.label(example["image"]) for example in examples]
    columns["truth"] = [example["label"] for example in examples]
    target = pathlib.Path(__file__).parents[1] / "images" / "results.png"
    target.write_bytes(encode_image(panel_grid(columns, height=150), compression=9))


if __name__ == "__main__":
    draw(*sys.argv[1:])
