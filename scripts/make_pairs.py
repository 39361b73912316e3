"""Pairs every labelled night with a day that a label-to-day run makes of its labels: NightLab's training set for
pix2pixHD.

    python scripts/make_pairs.py --workdir=runs/label2day --data=nightstreet/std --split=oracle_night --output=pairs

The result is a plain folder, ``images/`` the nights and ``references/`` their synthetic days under the same names;
train on it with ``configs/pix2pixhd.py:data=folder,translates=image``. Killed and started again it goes on. Training
splits only: labels that test something must not make anything that is trained on.
"""

import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from nightjax import run
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.data import sources, transforms
from nightjax.data.imagefiles import encode_png

Translate = Callable[[np.ndarray], jax.Array]
TESTS = ("val", "test")
"""Beginnings of the names of splits whose labels are not to be used."""


def main(argv: Sequence[str]) -> None:
    """Writes the pairs that are not there yet."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "Folder of a run of configs/pix2pixhd.py that translates labels.", flag_values=values
    )
    flags.DEFINE_integer("step", None, "Step of its checkpoint; the newest by default.", flag_values=values)
    flags.DEFINE_string("data", None, "Labelled nights.", flag_values=values)
    flags.DEFINE_string("split", "train", "Their split.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Where prepared data sets are kept.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Where downloaded files are.", flag_values=values)
    cli.parse(values, argv, required=("workdir", "data", "output"))
    check_split(values.split)
    cli.use_compilation_cache()
    loaded = run.load(values.workdir, step=values.step)
    if getattr(loaded.method, "translates", "") != "label":
        raise UserError(
            f"{values.workdir} does not translate labels; give a run of configs/pix2pixhd.py:translates=label"
        )
    source = sources.open_source(values.data, values.split, data_dir=values.data_dir, manual_dir=values.manual_dir)
    translate = jax.jit(loaded.method.translate)
    make_pairs(source, lambda label: translate(loaded.variables, label), pathlib.Path(values.output))
    print(
        f"{len(source)} pairs in {values.output}: use it as data=folder with --config.data.manual_dir={values.output}"
    )


def check_split(split: str) -> None:
    """Raises UserError for a split whose labels test something."""
    if any(part.strip().startswith(TESTS) for part in split.split("+")):
        raise UserError(f"--split={split}: its labels are for scoring; make pairs of training labels only")


def make_pairs(source: sources.Source, translate: Translate, output: pathlib.Path) -> None:
    """Writes ``images/train/<name>.png`` and ``references/train/<name>.png`` of every record.

    Args:
        source: records with image and label.
        translate: uint8 [1, H, W] labels to float32 [1, H, W, 3] in [0, 1].
        output: folder; pairs that it holds are left alone.
    """
    for i in tqdm(range(len(source)), unit="pair", disable=None):
        record = source[i]
        night, day = (output / part / "train" / f"{record['image_id']}.png" for part in ("images", "references"))
        if night.exists():
            continue
        example = transforms.decode(record, ("image", "label"))
        picture = np.asarray(jnp.round(255 * jnp.clip(translate(example["label"][None]), 0, 1)).astype(jnp.uint8))[0]
        for path, image in (
            (day, picture),
            (night, example["image"]),
        ):  # The night last: it says that the pair is whole.
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".tmp")
            draft.write_bytes(encode_png(image))
            draft.replace(path)


if __name__ == "__main__":
    cli.run(main)
