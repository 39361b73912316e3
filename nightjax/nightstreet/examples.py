# SPDX-License-Identifier: Apache-2.0
"""Examples by split and index, as arrays, rendered on demand."""

import numpy as np

from nightjax.core.config import choose
from nightjax.data.labels import class_pixels
from nightjax.nightstreet.pairs import render_pair
from nightjax.nightstreet.presets import PRESETS, SPLITS, Knobs
from nightjax.nightstreet.render import render


def example(split: str, index: int, *, size: tuple[int, int], knobs: Knobs = Knobs()) -> dict:
    """Renders one example.

    Args:
        split: name in ``SPLITS``.
        index: position in the split. It decides the seed of the scene, so a smaller preset has the first scenes.
        size: (height, width).
        knobs: nuisance factors.

    Returns:
        All splits: ``image`` uint8 [H, W, 3], ``image_id``, ``condition``. Labeled splits: ``label`` uint8 [H, W],
        ``invalid`` uint8 [H, W], ``class_pixels`` int32 [19]. Pairs: ``reference`` uint8 [H, W, 3], ``reference_id``,
        ``flow`` float32 [H, W, 2], ``flow_valid`` bool [H, W].
    """
    what = choose(SPLITS, split, "NightStreet split")
    seed = what.first_seed + index
    knobs = knobs if what.shifted else knobs.source()
    time_of_day = knobs.time_of_day if what.time_of_day == "night" else what.time_of_day
    condition = "fog" if knobs.fog else "rain" if knobs.rain else time_of_day
    result = {"image_id": f"{split}_{index:06d}", "condition": condition}
    if what.role == "pairs":
        pair = render_pair(seed, size=size, knobs=knobs)
        return result | {
            "image": pair["night"]["image"],
            "reference": pair["day"]["image"],
            "reference_id": f"{split}_{index:06d}_ref",
            "flow": pair["flow"],
            "flow_valid": pair["flow_valid"],
        }
    shift = knobs.prior_shift if what.shifted else 0.0
    view = render(seed, time_of_day, dynamic_seed=seed, sensor_seed=seed, size=size, knobs=knobs, prior_shift=shift)
    result["image"] = view["image"]
    if what.role == "labeled":
        label = view["label"]
        result |= {"label": label, "invalid": view["invalid"], "class_pixels": class_pixels(label).astype(np.int32)}
    return result


class NightStreet:
    """A split as a random-access sequence of `example`, for grain or a plain loop; nothing is cached.

    Args:
        split: name in ``SPLITS``.
        preset: ``"tiny"``, ``"std"`` or ``"large"``.
        knobs: nuisance factors.
    """

    def __init__(self, split: str, preset: str = "std", knobs: Knobs = Knobs()):
        choose(SPLITS, split, "NightStreet split")
        chosen = choose(PRESETS, preset, "NightStreet preset")
        self.split, self.size, self.count, self.knobs = split, chosen.size, chosen.counts[split], knobs

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        if not -self.count <= index < self.count:
            raise IndexError(f"NightStreet {self.split} has {self.count} examples, not one at {index}")
        return example(self.split, index % self.count, size=self.size, knobs=self.knobs)
