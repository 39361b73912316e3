# SPDX-License-Identifier: Apache-2.0
"""Segments images and videos with a trained network.

    nightjax predict --input=night.jpg
    nightjax predict --workdir=runs/dsr_fpa --input=my_photos --output=masks
    nightjax predict --workdir=runs/dsr_fpa --input=a.jpg,b.png --output=masks --scales=0.75,1,1.25 --flip
    nightjax predict --workdir=runs/dsr_fpa --input=my_photos --output=masks --abstain=0.9
    nightjax predict --workdir=runs/dsr_fpa --input=drive.mp4 --output=masks --smooth
    nightjax predict --workdir=runs/dsr_fpa --input=drive_frames --frame_rate=25 --output=masks

For every image it writes NAME_trainids.png (gray, the values are class ids), NAME_color.png and NAME_overlay.jpg, at
the image's own size, and for every video the folder NAME_trainids of masks and NAME_overlay.mp4. classes.json and
legend.png say once what ids and colors mean; summary.json has the classes' shares of every image. Sub-folders of an
input folder are kept. It needs the run folder, and no data set. Without --workdir it takes the small network that
comes with nightjax.

--abstain=0.9 leaves pixels without class, 255, where the network is too unsure: of those that keep their class 90 % are
to be right. The run needs a calibration, which nightjax calibrate makes without labels of nights.

Several processes or hosts share the images with --shard=0/4 to --shard=3/4 and one --output; the last one to finish
writes summary.json.

The same command goes on where it was stopped. Files that cannot be segmented never stop the others: they are listed at
the end, and the exit code is 2.
"""

import functools
from collections.abc import Sequence
from typing import Any

from absl import flags

from nightjax import api, bundled
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.inference.inputs import find_inputs
from nightjax.inference.many import Predictions
from nightjax.inference.predict import parse_size, should_bucket
from nightjax.inference.smoothing import Smoother
from nightjax.inference.summaries import SUMMARY


def main(argv: Sequence[str]) -> None:
    """Predicts."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", "", "Folder of the run; by default the network that comes with nightjax.", flag_values=values
    )
    flags.DEFINE_list("input", None, "Images, videos, or folders of them.", flag_values=values)
    flags.DEFINE_string("output", "predictions", "Folder to write.", flag_values=values)
    cli.define_checkpoint(values)
    flags.DEFINE_list(
        "size",
        [],
        "height,width that the network sees, or own for the image's; by default the run's eval.height, else the height "
        "it was trained at.",
        flag_values=values,
    )
    flags.DEFINE_list("scales", ["1"], "Scales to average over.", flag_values=values)
    flags.DEFINE_bool("flip", False, "Average over the mirror image too.", flag_values=values)
    flags.DEFINE_float(
        "frame_rate",
        0.0,
        "Frames a second: takes the images of each input folder for the numbered frames of a video. By default they "
        "are single images, and videos keep their own rate.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "smooth",
        False,
        "Steady the labels of videos: average each frame with the one before, moved along the optical flow.",
        flag_values=values,
    )
    cli.define_abstain(values)
    cli.define_shard(values)
    cli.parse(values, argv, __doc__, required=("input",))
    cli.use_compilation_cache()
    options = {"scales": _scales(values.scales), "flip": values.flip}
    if values.size:
        options["input_size"] = parse_size(values.size, "size", own=True)
    if values.frame_rate < 0:
        raise UserError(f"--frame_rate={values.frame_rate:g} must be above 0")
    if values.smooth and (len(options["scales"]) > 1 or values.flip):
        raise UserError("--smooth is for one scale: leave out --flip and all but one of --scales")
    part = cli.parse_shard(values.shard)
    inputs = find_inputs(values.input, values.output, frames=bool(values.frame_rate))
    if not values.workdir:
        print(f"this is {bundled.WHAT}", flush=True)
    model = api.load(values.workdir, network=values.network, step=values.step)
    confident = model.confident_from(values.abstain)
    told: dict[str, Any] = {"smooth": True} if values.smooth else {}
    if confident:
        told["abstain"] = {"precision": values.abstain, "confidence": confident, "temperature": model.temperature}
    made_by = model.run.facts() | {"options": options | told}
    predictions = Predictions(values.output, made_by, model.classes, part)
    sizes = inputs.sizes.values()
    if not values.size:
        print(_size_line(model, max((height for _, height in sizes), default=0)), flush=True)
    bucket = should_bucket(sizes)
    score = functools.partial(model.scores, bucket=bucket, **options)
    smoother = functools.partial(Smoother, score, confident) if values.smooth else None
    predictions(lambda image: score(image).label(confident), inputs, values.frame_rate, smoother)
    before = f" ({predictions.before} of them before)" if predictions.before else ""
    print(f"{predictions.count} images and videos segmented into {predictions.folder}{before}")
    if not predictions.is_whole:
        print(f"part {part[0]}/{part[1]} is done; the last part writes {predictions.folder / SUMMARY}")
    if inputs.passed_over:
        print(inputs.summary())
    _report(predictions.failed)


def _size_line(model: api.Model, largest: int) -> str:
    """At which size images are shown to the network, and why."""
    rows = model.input_height
    if not rows:
        return "images are shown to the network at their own size, as it was trained; --size=height,width changes it"
    why = "eval.height of the run" if model.run.config.eval.height else "the height at which it was trained"
    small = f"; of {largest} rows most detail is lost" if largest > 4 * rows else ""
    return f"images are shown to the network at {rows} rows, {why}{small}; --size=height,width or --size=own changes it"


def _report(failed: dict[str, str]) -> None:
    """Lists what could not be segmented."""
    if not failed:
        return
    for reason in failed.values():
        print(f"  not segmented: {reason}")
    number = "1 file" if len(failed) == 1 else f"{len(failed)} files"
    raise UserError(f"{number} could not be segmented, the first: {next(iter(failed.values()))}")


def _scales(words: Sequence[str]) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, words))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 16 for scale in scales):
        raise UserError(f"--scales={','.join(words)} must be numbers above 0, such as 0.75,1,1.25")
    return scales


if __name__ == "__main__":
    cli.run(main)
