# SPDX-License-Identifier: Apache-2.0
"""Pairs every labeled night with a day that a label-to-day network makes of its labels.

    nightjax pairs --workdir=runs/label2day --data=nightstreet/std --split=oracle_night --output=pairs
    nightjax pairs --workdir=RUN --data=nightcity/original --output=PAIRS --manual_dir=DIR
    nightjax pairs --workdir=RUN --data=nightcity/original --output=PAIRS --manual_dir=DIR --step=best

This is NightLab's training set for Pix2PixHD. The result is a plain folder: images/ holds the nights and references/
their synthetic days under the same names. Train on it with configs/pix2pixhd.py:data=folder,translates=image. Rerun the
command to continue an interrupted one. Only training splits are taken: labels that score something must not make
anything that is trained on.
"""

import pathlib
from collections.abc import Sequence

import jax
from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.method import translates
from nightjax.data import sources
from nightjax.prepare.pairs import check_split, make_pairs
from nightjax.run import loaded


def main(argv: Sequence[str]) -> None:
    """Writes the pairs that are not there yet."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "Run folder of configs/pix2pixhd.py with translates=label.", flag_values=values
    )
    flags.DEFINE_string("step", None, "Checkpoint to load: a step, or best; by default the newest.", flag_values=values)
    flags.DEFINE_string("data", None, "Data set of labeled nights.", flag_values=values)
    flags.DEFINE_string("split", "train", "Its split.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("workdir", "data", "output"))
    check_split(values.split)
    cli.use_compilation_cache()
    run = loaded.load(values.workdir, step=values.step)
    if run.config.method.get("translates") != "label":
        raise UserError(
            f"{values.workdir} does not translate labels; give a run of configs/pix2pixhd.py:translates=label"
        )
    source = sources.open_source(
        values.data,
        values.split,
        data_dir=values.data_dir,
        manual_dir=values.manual_dir,
        classes=run.classes,
        merges=run.config.classes.merges.to_dict(),
    )
    translate = jax.jit(run.written(translates(run.method).translate))
    make_pairs(source, lambda label: translate(run.variables, label), pathlib.Path(values.output))
    print(
        f"{len(source)} pairs in {values.output}: use it as data=folder with --config.data.manual_dir={values.output}"
    )


if __name__ == "__main__":
    cli.run(main)
