# SPDX-License-Identifier: Apache-2.0
"""Translates a labeled day set into a labeled night set, with a trained translator or by Fourier domain adaptation.

    nightjax translate --workdir=runs/unit --data=nightstreet/std --split=source_day
    nightjax translate --workdir=runs/cyclegan --to=day --data=nightstreet/std --split=test_night
    nightjax translate --fda=nightstreet/std_pairs --fda_split=target_pairs --data=nightstreet/std --split=source_day

The first two take the newest checkpoint of a run whose method translates (configs/unit.py, cyclegan.py, pix2pixhd.py).
The third gives every image the low frequencies of one of the night images. The result is a prepared data set,
translated/NAME, with the labels and names of the original; the split "all" becomes "train". Train on it with
--config.data.streams.source.dataset=translated/NAME, or on it and its days with nightstreet/std+translated/NAME. Its
metadata.json says what made it.

Rerun the command to continue an interrupted one; the result is the same to the byte. Several processes share the work
with --shard=0/4 to --shard=3/4, and the last one to finish writes the records.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.method import translates
from nightjax.data import sources
from nightjax.inference.predict import parse_size
from nightjax.inference.translators import fourier_translator, network_translator
from nightjax.prepare import translated
from nightjax.run import loaded


def main(argv: Sequence[str]) -> None:
    """Translates this process's share, and writes the records if that was the last."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "Run folder of a method that translates.", flag_values=values)
    flags.DEFINE_string("step", None, "Checkpoint to load: a step, or best; by default the newest.", flag_values=values)
    flags.DEFINE_enum("to", "night", ["night", "day"], "What to turn the images into.", flag_values=values)
    flags.DEFINE_list(
        "size", [], "height,width that the translator sees; by default the image's own.", flag_values=values
    )
    flags.DEFINE_bool("stretch", False, "Stretch every image to the full range, as the authors do.", flag_values=values)
    flags.DEFINE_string("fda", "", "Data set to take the low frequencies of, instead of --workdir.", flag_values=values)
    flags.DEFINE_string("fda_split", "train", "Its split.", flag_values=values)
    flags.DEFINE_float(
        "beta",
        0.01,
        "Half the width of the window of low frequencies, as a fraction of the shorter side.",
        flag_values=values,
    )
    flags.DEFINE_string("data", None, "Data set to translate.", flag_values=values)
    flags.DEFINE_list("split", None, "Its splits.", flag_values=values)
    flags.DEFINE_string("name", "", "Name of the result; by default RUN_DATA or fda_DATA.", flag_values=values)
    cli.define_shard(values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("data", "split"))
    if bool(values.workdir) == bool(values.fda):
        raise UserError("give either --workdir, a translator's run, or --fda, a data set of nights")
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that its builder's class does not list.
    cli.use_compilation_cache()
    shard, shards = cli.parse_shard(values.shard)
    folders = {"data_dir": values.data_dir, "manual_dir": values.manual_dir}
    translate, made_by = _from_run(values) if values.workdir else _from_nights(values, folders)
    opened = translated.open_splits(values.data, values.split, **folders)
    name = values.name or translated.default_name(values.workdir or "fda", values.data)
    translation = translated.plan(name, values.data, opened, made_by, values.to, values.data_dir)
    if translation.make(translate, shard, shards):
        print(f"{translation.path} is ready: use it as dataset=translated/{translation.name}")
    else:
        left = sum(1 for _ in translation.missing())
        print(
            f"part {shard}/{shards} is done, {left} images of other parts are missing: the last part writes the records"
        )


def _from_run(values: flags.FlagValues) -> tuple[translated.Translator, dict[str, Any]]:
    size = parse_size(values.size, "size") if values.size else None
    run = loaded.load(values.workdir, step=values.step)
    name = run.config.method.name
    translate, facts = network_translator(
        run.written(translates(run.method).translate), run.variables, to=values.to, size=size, stretch=values.stretch
    )
    return translate, {"method": name, "step": run.step} | facts


def _from_nights(values: flags.FlagValues, folders: dict[str, Any]) -> tuple[translated.Translator, dict[str, Any]]:
    nights = sources.open_source(values.fda, values.fda_split, **folders)
    if not len(nights):
        raise UserError(f"{values.fda}, split {values.fda_split!r}, has no records")
    return fourier_translator(nights, values.beta)


if __name__ == "__main__":
    cli.run(main)
