# SPDX-License-Identifier: Apache-2.0
"""Writes NightStreet as files in Dark Zurich's layout, to try the path that real data takes without any real data.

    python scripts/export_nightstreet.py --output=DIR
    python scripts/export_nightstreet.py --output=DIR --preset=tiny
    nightjax check --data=dark_zurich/pairs --manual_dir=DIR

Under DIR/Dark_Zurich: night and day images of the training pairs with the csv lists that say which belong together, and
labeled validation nights with invalid masks and day references. The streets are NightStreet's; drives and frames are
made up.
"""

import functools
from collections.abc import Sequence

import numpy as np
from absl import flags
from etils import epath

from nightjax.core import cli
from nightjax.core.parallel import parallel_map
from nightjax.data.imagefiles import encode_png
from nightjax.nightstreet import PRESETS, SPLITS
from nightjax.nightstreet.examples import example
from nightjax.nightstreet.pairs import render_pair

NIGHT, DAY, VALIDATION = "GOPR0901", "GOPR0900", "GOPR0902"
"""Made-up drives."""


def write(root: epath.Path, path: str, image: np.ndarray) -> None:
    """Writes one PNG under the root, folders included."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode_png(image))


def write_pair(index: int, root: epath.Path, preset: str) -> str:
    """Night and day image of one training pair; returns its row of the list."""
    drawn = example("target_pairs", index, size=PRESETS[preset].size)
    night, day = f"night/{NIGHT}/{NIGHT}_frame_{index:06d}", f"day/{DAY}/{DAY}_frame_{index:06d}"
    write(root, f"rgb_anon/train/{night}_rgb_anon.png", drawn["image"])
    write(root, f"rgb_anon/train/{day}_rgb_anon.png", drawn["reference"])
    return f"train/{night},train/{day}"


def write_validation(index: int, root: epath.Path, preset: str) -> None:
    """One labeled night with its invalid mask and a day view of the same street."""
    pair = render_pair(SPLITS["val_night"].first_seed + index, size=PRESETS[preset].size)
    stem, night = f"{VALIDATION}_frame_{index:06d}", pair["night"]
    write(root, f"rgb_anon/val/night/{VALIDATION}/{stem}_rgb_anon.png", night["image"])
    write(root, f"rgb_anon/val_ref/day/{VALIDATION}_ref/{stem}_ref_rgb_anon.png", pair["day"]["image"])
    write(root, f"gt/val/night/{VALIDATION}/{stem}_gt_labelTrainIds.png", night["label"])
    write(root, f"gt/val/night/{VALIDATION}/{stem}_gt_invIds.png", night["invalid"])


def main(argv: Sequence[str]) -> None:
    """Writes the files."""
    values = flags.FlagValues()
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_enum("preset", "std", tuple(PRESETS), "Size and number of images.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("output",))
    root, counts = epath.Path(values.output) / "Dark_Zurich", PRESETS[values.preset].counts
    settings = {"root": root, "preset": values.preset}
    rows = list(parallel_map(functools.partial(write_pair, **settings), range(counts["target_pairs"]), desc="pairs"))
    table = root / f"corresp/train/night/{NIGHT}/{NIGHT}_ref_day.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(rows) + "\n")
    list(parallel_map(functools.partial(write_validation, **settings), range(counts["val_night"]), desc="validation"))
    print(f"{root}: {len(rows)} pairs, {counts['val_night']} labeled nights")


if __name__ == "__main__":
    cli.run(main)
