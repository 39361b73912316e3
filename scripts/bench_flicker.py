# SPDX-License-Identifier: Apache-2.0
"""Measures flicker and mIoU of a run on drawn drives by night, frame by frame and smoothed.

    python scripts/bench_flicker.py --workdir=runs/dsr_fpa
    python scripts/bench_flicker.py --workdir=runs/dsr_fpa --drives=20 --frames=24

Flicker is the percentage of static points that change their predicted class from one frame to the next although they
keep their true one. The drives are streets of NightStreet's test_night.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from absl import flags

from nightjax import api, nightstreet
from nightjax.core import cli
from nightjax.core.types import IGNORE
from nightjax.inference.smoothing import Smoother
from nightjax.metrics import confusion
from nightjax.metrics.flicker import flicker, flicker_counts
from nightjax.nightstreet.sequences import render_drive

FIRST_SCENE = nightstreet.SPLITS["test_night"].first_seed


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_integer("drives", 10, "How many drives.", flag_values=values)
    flags.DEFINE_integer("frames", 16, "Frames of each.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    model = api.load(values.workdir)
    score = functools.partial(model.scores, bucket=False)
    kinds = {"frame by frame": lambda: lambda image: score(image).label(), "smoothed": lambda: Smoother(score)}
    classes = len(model.classes)
    flickers = {kind: np.zeros((values.drives, 2), np.int64) for kind in kinds}
    pairs = {kind: np.zeros((classes, classes), np.int64) for kind in kinds}
    for drive in range(values.drives):
        frames = list(render_drive(FIRST_SCENE + drive, values.frames))
        for kind, make in kinds.items():
            label = make()
            labels = [label(frame["image"]) for frame in frames]
            for predicted, frame in zip(labels, frames, strict=True):
                known = frame["label"] != IGNORE
                code = frame["label"][known].astype(np.int64) * classes + predicted[known]
                pairs[kind] += np.bincount(code, minlength=classes**2).reshape(classes, classes)
            for i in range(1, len(frames)):
                truths = frames[i - 1]["label"], frames[i]["label"]
                flow, valid = frames[i]["flow"], frames[i]["flow_valid"]
                flickers[kind][drive] += flicker_counts((labels[i - 1], labels[i]), truths, flow, valid)
    print(f"{values.workdir}: {values.drives} drives of {values.frames} frames, OpenCV {cv2.__version__}")
    print(f"{'':<16}{'flicker %':>11}{'mIoU %':>9}")
    for kind in kinds:
        miou = 100 * np.nanmean(confusion.iou_per_class(pairs[kind]))
        print(f"{kind:<16}{flicker(flickers[kind].sum(0)):>11.2f}{miou:>9.2f}")
    first, second = ([flicker(counts) for counts in flickers[kind]] for kind in kinds)
    print(f"smoothing lowers flicker in {sum(b < a for a, b in zip(first, second, strict=True))} of the drives")


if __name__ == "__main__":
    cli.run(main)
