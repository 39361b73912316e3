# SPDX-License-Identifier: Apache-2.0
r"""Labels unlabeled images with a trained network, and writes them as a data set of kind "folder".

    nightjax pseudo-label --workdir=runs/teacher --images=my_nights --output=pseudo/all --threshold=0.9
    nightjax pseudo-label --workdir=runs/teacher --images=my_nights --output=pseudo/teacher --network=teacher
    nightjax pseudo-label --workdir=runs/teacher --images=nightstreet/std_pairs@target_pairs \
        --list=selected/fid/selected.csv --split=source_day --output=pseudo/fid

A set of images is a folder or DATASET@SPLIT. Images are labeled whole, at their own size, in evaluation mode. Pixels
with a lower confidence than --threshold become 255; the default, 0, keeps all, as the thesis does. Train on the
result with --config=configs/self_training.py:pseudo=pseudo/fid. --split names the split by which labeled data and
pseudo-labels are read together.
"""

import pathlib
import re
from collections.abc import Sequence

from absl import flags

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.progress import Progress
from nightjax.inference.predict import should_bucket
from nightjax.inference.pseudo_labels import write_pseudo_labels
from nightjax.selection.choice import read_list
from nightjax.selection.images import ImageSet


def main(argv: Sequence[str]) -> None:
    """Labels the images."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Run folder of the teacher.", flag_values=values)
    flags.DEFINE_string("images", None, "Images to label: a folder, or DATASET@SPLIT.", flag_values=values)
    flags.DEFINE_string(
        "list", "", "selected.csv of nightjax select: label these images only; by default all.", flag_values=values
    )
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_string("split", "train", "Name of the split to write.", flag_values=values)
    flags.DEFINE_float("threshold", 0.0, "Least confidence of a label, from 0 to 1.", flag_values=values)
    cli.define_checkpoint(values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("workdir", "images", "output"))
    cli.use_compilation_cache()
    if not 0 <= values.threshold < 1:
        raise UserError(f"--threshold={values.threshold} must be at least 0 and below 1")
    if not re.fullmatch(r"[\w.-]*\w", values.split):
        raise UserError(f"--split={values.split!r} is no name for a split: use letters, digits and underscores")
    pool = ImageSet(values.images, data_dir=values.data_dir, manual_dir=values.manual_dir)
    position = {name: i for i, name in enumerate(pool.names())}
    names = read_list(values.list) if values.list else list(position)
    if unknown := [name for name in names if name not in position]:
        raise UserError(
            f"{values.list} names {unknown[0]!r}, which {values.images} does not hold: give the pool it is from"
        )
    model = api.load(values.workdir, network=values.network, step=values.step)
    bucket = should_bucket(pool.sizes())
    count = write_pseudo_labels(
        lambda image: model.predict(image, bucket=bucket),
        (pool[position[name]] for name in Progress(names, unit="image")),
        pathlib.Path(values.output),
        split=values.split,
        threshold=values.threshold,
        record={key: values[key].value for key in ("workdir", "images", "list", "threshold")}
        | {"step": model.run.step},
        classes=model.classes,
    )
    print(f"{count} images labeled into {values.output}")


if __name__ == "__main__":
    cli.run(main)
