"""Labels unlabelled pictures with a trained network and writes them as a `folder` data set.

    python scripts/make_pseudo_labels.py --workdir=runs/teacher --images=nightstreet/std_pairs@target_pairs \
        --list=selected/fid/selected.csv --split=source_day --output=pseudo/fid

A set of pictures is a folder or DATASET@SPLIT. Whole pictures are labelled at their own size, in evaluation mode.
Pixels less sure than --threshold become 255; 0, the default and the thesis' choice, keeps all. Train on the union with
``--config=configs/self_training.py:pseudo=pseudo/fid``; --split is the name of the split that both sets are read by.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from nightjax import api
from nightjax.core import cli
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.data.labels import class_pixels
from nightjax.inference import overlay
from nightjax.inference.predict import should_bucket
from nightjax.selection.images import Pictures


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="run of the teacher")
    parser.add_argument("--images", required=True, help="a folder, or DATASET@SPLIT")
    parser.add_argument(
        "--list", default="", metavar="FILE", help="selected.csv of select_images.py; all pictures without"
    )
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--split", default="train", help="name of the split to write")
    parser.add_argument("--threshold", type=float, default=0.0, help="least probability of a label, 0 to 1")
    parser.add_argument("--which", default="", help="student or teacher; by default what the run evaluates")
    parser.add_argument("--step", help="step of the checkpoint, or best; the newest by default")
    parser.add_argument("--data_dir", default="", help="where prepared data sets are kept")
    parser.add_argument("--manual_dir", default="", help="where downloaded files are")
    options = parser.parse_args(argv[1:])
    cli.use_compilation_cache()
    if not 0 <= options.threshold < 1:
        raise UserError(f"--threshold={options.threshold} must be at least 0 and below 1")
    pictures = Pictures(options.images, data_dir=options.data_dir, manual_dir=options.manual_dir)
    position = {name: i for i, name in enumerate(pictures.names())}
    names = read_list(options.list) if options.list else list(position)
    if unknown := [name for name in names if name not in position]:
        raise UserError(
            f"{options.list} names {unknown[0]!r}, which {options.images} does not hold: give the pool it is from"
        )
    model = api.load(options.workdir, which=options.which, step=options.step)
    folder, counts = pathlib.Path(options.output), np.zeros(len(CITYSCAPES.names), np.int64)
    bucket = should_bucket(pictures.sizes())
    for name in tqdm(names, unit="image", disable=None):
        _, image = pictures[position[name]]
        prediction = model.predict(image, bucket=bucket)
        label = np.where(prediction.confidence >= options.threshold, prediction.label, np.uint8(IGNORE))
        counts += class_pixels(label)
        for part, data in (("images", overlay.encode_image(image)), ("labels", overlay.encode_label(label))):
            path = folder / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (folder / "lists").mkdir(exist_ok=True)
    (folder / "lists" / f"{options.split}.txt").write_text("".join(f"{name}\n" for name in names))
    record = {key: getattr(options, key) for key in ("workdir", "images", "list", "threshold")}
    record |= {"step": model.run.step, "pictures": len(names)}
    record["pixels"] = dict(zip(CITYSCAPES.names, counts.tolist(), strict=True))
    (folder / "pseudo_labels.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(names)} pictures labelled into {folder}")


def read_list(path: str) -> list[str]:
    """Names of a selected.csv.

    Raises:
        UserError: no such file, or no list of names.
    """
    try:
        with open(path, newline="") as file:
            names = [row["name"] for row in csv.DictReader(file)]
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is no selected.csv of select_images.py: {error}") from error
    if not names:
        raise UserError(f"{path} names no pictures")
    return names


if __name__ == "__main__":
    cli.run(main)
