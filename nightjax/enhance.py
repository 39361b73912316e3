# SPDX-License-Identifier: Apache-2.0
"""Brightens a labeled night set with SingleHDR: NightLab's enhancement baseline, which trains and tests on the result.

    nightjax enhance --weights=singlehdr.npz --data=nightcity/plus --split=train,validation --manual_dir=DIR
    nightjax enhance --weights=singlehdr.npz --data=nightstreet/std --split=oracle_night --name=brightened
    nightjax enhance --weights=singlehdr.npz --data=nightcity/original --split=train --manual_dir=DIR

The result is a prepared data set, translated/NAME, with the labels and names of the nights. The weights are the
published ones, converted to a .npz (see nightjax.interop.singlehdr); they are not part of nightjax. NightLab does not
say how it maps HDR to 8 bits; here every image is scaled to mean 0.5 and goes through log(1 + 10 x) / log 11.
"""

from collections.abc import Sequence

from absl import flags

from nightjax.core import cli
from nightjax.inference.translators import singlehdr_translator
from nightjax.prepare import translated


def main(argv: Sequence[str]) -> None:
    """Enhances the records that have no image yet, and writes the data set."""
    values = flags.FlagValues()
    flags.DEFINE_string("weights", None, "File of SingleHDR's weights.", flag_values=values)
    flags.DEFINE_string("data", None, "Data set to enhance.", flag_values=values)
    flags.DEFINE_list("split", None, "Its splits.", flag_values=values)
    flags.DEFINE_string("name", "", "Name of the result; by default singlehdr_DATA.", flag_values=values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("weights", "data", "split"))
    cli.use_compilation_cache()
    translate, made_by = singlehdr_translator(values.weights)
    opened = translated.open_splits(values.data, values.split, data_dir=values.data_dir, manual_dir=values.manual_dir)
    name = values.name or translated.default_name("singlehdr", values.data)
    translation = translated.plan(name, values.data, opened, made_by, "night", values.data_dir)
    translation.make(translate)
    print(f"{translation.path} is ready: use it as dataset=translated/{translation.name}")


if __name__ == "__main__":
    cli.run(main)
