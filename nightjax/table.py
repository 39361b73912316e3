# SPDX-License-Identifier: Apache-2.0
"""Summarizes run folders in one Markdown table; seeds of one run become mean ± standard deviation.

    nightjax table --runs='runs/supervised*,runs/dsr_fpa*' --sets=night=test_night,day=val_day
    nightjax table --runs='runs/dark_zurich-*' --published=published.json --cost
    nightjax table --runs=runs/source,runs/adapted --sets=test_night

A row is a group of runs whose folders differ only in "-seedN", under the name of these folders. The columns are the
primary mIoU on the first set and its means over groups of classes, the primary mIoU on the other sets, and, with
--cost, minutes of training and peak memory (runs that shared a machine took longer). Scores are those of each run's
last evaluation, in percent.
"""

from collections.abc import Sequence

from absl import flags

from nightjax.core import cli
from nightjax.report.results_table import choose_sets, group_runs, markdown, read_published


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_list("runs", None, "Run folders, or patterns such as 'runs/dacs*'.", flag_values=values)
    flags.DEFINE_list("sets", [], "Evaluation sets to show, each SET or TITLE=SET; by default all.", flag_values=values)
    flags.DEFINE_bool("cost", False, "Show minutes of training and peak memory.", flag_values=values)
    flags.DEFINE_string(
        "published", "", "JSON file of published numbers to show, column to row to number.", flag_values=values
    )
    cli.parse(values, argv, __doc__, required=("runs",))
    groups = group_runs(values.runs)
    sets = choose_sets(groups, values.sets)
    print(markdown(groups, sets, read_published(values.published), values.cost), end="")


if __name__ == "__main__":
    cli.run(main)
