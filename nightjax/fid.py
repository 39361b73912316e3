# SPDX-License-Identifier: Apache-2.0
r"""Measures the distance between sets of images: FID, and KID beside it.

    nightjax fid translated real_night --weights=pt_inception-2015-12-05-6726825d.pth
    nightjax fid nightstreet/std@val_day nightstreet/std@val_night --features=random

A set is a folder of images, or DATASET@SPLIT. Without Inception weights, --features=random takes the same
distances between the features of an untrained network: good for more or less, but no FID. Compare only numbers of equal
n, resize rule and features.

All sets are compared with the last one. Of several, the best is named; of sets less than 0.1 FID apart, the last of
them. This is how the checkpoint of a translator is chosen:

    for step in $(seq 5000 5000 50000); do
        nightjax translate --workdir=RUN --step=$step --data=DAYS --split=train --name=step_$step
    done
    nightjax fid $(seq -f 'translated/step_%.0f@train' 5000 5000 50000) NIGHTS@train --weights=FILE

Several processes share large sets: give the same command on all of them, with --distributed on a TPU pod, and elsewhere
with --coordinator=HOST:PORT --processes=N --process_id=I. KID needs all features in one place and is then left out.
"""

from collections.abc import Sequence

from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.selection.distances import compare
from nightjax.selection.image_features import describe_with
from nightjax.selection.images import ImageSet


def main(argv: Sequence[str]) -> None:
    """Compares the sets."""
    values = flags.FlagValues()
    flags.DEFINE_string("features", "inception", "Features to compare: inception or random.", flag_values=values)
    flags.DEFINE_string(
        "weights", "", "File of the Inception weights (.pth, .safetensors or .npz).", flag_values=values
    )
    flags.DEFINE_string("resize", "pytorch_fid", "Resizing before Inception: pytorch_fid or clean.", flag_values=values)
    flags.DEFINE_integer("batch", 32, "Images at a time.", lower_bound=1, flag_values=values)
    cli.define_folders(values)
    cli.define_processes(values)
    words = cli.parse(values, argv, __doc__, words="SET SET ...")
    if len(words) < 2:
        raise UserError("give two sets, or several and the one that all of them are compared with")
    cli.use_compilation_cache()
    cli.join_from_flags(values)
    describe = describe_with(values.features, weights=values.weights, rule=values.resize, batch=values.batch)
    *sets, last = (ImageSet(where, data_dir=values.data_dir, manual_dir=values.manual_dir) for where in words)
    for line in compare(sets, last, describe, values.features, values.resize):
        print(line)


if __name__ == "__main__":
    cli.run(main)
