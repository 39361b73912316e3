# SPDX-License-Identifier: Apache-2.0
"""Measures how wide NightStreet's domain gap is, and which factor of the night makes it.

    python scripts/nightstreet_gap.py --source=runs/source --exposure=runs/exposure --oracle=runs/oracle
    python scripts/nightstreet_gap.py --source=runs/source --exposure=runs/exposure --oracle=runs/oracle --check
    python scripts/nightstreet_gap.py --source=runs/source --factors
    python scripts/nightstreet_gap.py --source=runs/source --weathers

Draws test_night under other knobs (nightjax.nightstreet.presets) and scores trained runs on it: S the source-only
network, E the one with exposure normalization, O the oracle. "closed" is the share of the gap from S to O that E
closes. The oracle has learned the published night, so its column is filled for the night "std" alone. Give several
seeds as --source=A,B,C.

--check exits with code 1 if the means of "std" leave the band that the benchmark is made for, and says where, one
line a number.
"""

import sys
from collections.abc import Sequence

from absl import flags

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.nightstreet import gap


def main(argv: Sequence[str]) -> None:
    """Prints the table, and checks it if asked to."""
    values = flags.FlagValues()
    flags.DEFINE_list("source", None, "Source-only runs (configs/supervised.py), one a seed.", flag_values=values)
    flags.DEFINE_list("exposure", [], "Source-only runs with exposure=1.", flag_values=values)
    flags.DEFINE_list("oracle", [], "Runs with train_on=oracle.", flag_values=values)
    flags.DEFINE_integer("count", 100, "Nights to draw.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("factors", False, "Also switch off each factor of the night by itself.", flag_values=values)
    flags.DEFINE_bool("check", False, "Exit with code 1 if std leaves its band.", flag_values=values)
    flags.DEFINE_bool("weathers", False, "Also draw fog and rain, by day and by night.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("source",))
    if values.check and not (values.exposure and values.oracle):
        raise UserError("--check compares three networks: give --exposure and --oracle, too")
    runs = {"S": values.source, "E": values.exposure, "O": values.oracle}
    models = {name: [api.load(path) for path in paths] for name, paths in runs.items()}
    measured = gap.Gap(models, lambda model, drawn: gap.mean_iou(lambda x: model.predict(x).label, drawn))
    print(gap.HEAD)
    for row in measured.rows(gap.conditions(values.factors, values.weathers), values.count):
        print(row, flush=True)
    print(measured.by_day(values.count))
    if values.check and (lines := gap.outside(measured.measured)):
        print("\n".join(lines))
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
