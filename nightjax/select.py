# SPDX-License-Identifier: Apache-2.0
r"""Selects the images of an unlabeled pool that are most like a reference set, or darkest.

    nightjax select --rule=his_dark --pool=my_nights --count=200 --output=selected/dark
    nightjax select --rule=his_ref --pool=my_nights --reference=my_other_nights --count=200 --output=selected/ref
    nightjax select --rule=fid_point --count=200 --output=selected/fid --features=random \
        --pool=nightstreet/std_pairs@target_pairs,nightstreet/std_unlabeled@target_twilight \
        --reference=translated/images

Sets are folders or DATASET@SPLIT. Rules: his_dark (the darkest nights), his_ref (the nearest luminance histograms),
random, and fid_point, fid_maha, fid_group, fid_greedy (see nightjax.selection.coverage). The output folder gets
selected.csv (name and score, best first), selection.json (what was done, and the Fréchet distance of the selection
beside that of random ones) and contact_sheet.png. Images that results are scored on are refused unless --transductive
allows them; selection.json says so then.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.selection import choice
from nightjax.selection.image_features import describe_with
from nightjax.selection.images import ImageSet, scored_by


def main(argv: Sequence[str]) -> None:
    """Selects, and writes the folder."""
    values = flags.FlagValues()
    flags.DEFINE_string("rule", None, f"How to choose; one of {', '.join(choice.RULES)}.", flag_values=values)
    flags.DEFINE_string("pool", None, "Unlabeled images to choose from.", flag_values=values)
    flags.DEFINE_string(
        "reference", "", "Images that the selection should resemble; his_dark and random need none.", flag_values=values
    )
    flags.DEFINE_integer("count", None, "How many images to choose.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_bool(
        "transductive", False, "Allow a pool or reference that results are scored on.", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "Seed of the rule random.", lower_bound=0, flag_values=values)
    flags.DEFINE_string("features", "inception", "Features of the fid rules: inception or random.", flag_values=values)
    flags.DEFINE_string("weights", "", "File of the Inception weights.", flag_values=values)
    flags.DEFINE_string("resize", "pytorch_fid", "Resizing before Inception: pytorch_fid or clean.", flag_values=values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("rule", "pool", "count", "output"))
    cli.use_compilation_cache()
    choice.check_rule(values.rule, values.reference)
    for flag in ("pool", "reference"):
        where = values[flag].value or ""
        if (scored := scored_by(where)) and not values.transductive:
            raise UserError(
                f"--{flag}={where} is {scored}, on which results are scored: choose other images, or allow it with "
                "--transductive and report it with the results"
            )
    folders = {"data_dir": values.data_dir, "manual_dir": values.manual_dir}
    pool = ImageSet(values.pool, **folders)
    reference = ImageSet(values.reference, **folders) if values.reference else None
    record = {key: values[key].value for key in ("rule", "pool", "reference", "transductive", "count")}
    describe = None
    if values.rule not in choice.RULES_WITHOUT_FEATURES:
        describe = describe_with(values.features, weights=values.weights, rule=values.resize)
        record |= {"features": values.features, "resize": values.resize}
    made = choice.choose(values.rule, values.count, pool, reference, describe=describe, seed=values.seed)
    choice.write(pathlib.Path(values.output), made, pool, reference, record)
    print(
        f"{len(made.chosen)} of {len(made.names)} images chosen by {values.rule}, see {values.output}/contact_sheet.png"
    )


if __name__ == "__main__":
    cli.run(main)
