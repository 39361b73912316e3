# SPDX-License-Identifier: Apache-2.0
"""Measures how close the features of night are to the class prototypes of day: what T2S-DA means to change.

    python scripts/feature_similarity.py --workdir=runs/source,runs/dacs,runs/t2s_da --set=val_night
    python scripts/feature_similarity.py --workdir=runs/t2s_da --classes

Prototypes are the mean features of each class over labeled source images. "own" is the mean cosine of a class's
features in the evaluation set to its prototype, "other" to the prototypes of the other classes. The table shows the
means over classes, and with --classes every class. The features are those that the classifier reads, of the network
that the run evaluates.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError, choose
from nightjax.core.method import segments
from nightjax.data import sources
from nightjax.inference.similarity import prototype_similarity
from nightjax.run import loaded, settings


def similarity(run: loaded.Run, eval_set: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """See `prototype_similarity`; the prototypes are those of the run's source."""
    if "source" not in run.method.domains:
        raise UserError(f"{run.workdir} is a run of {run.config.method.name!r}, which has no labeled source to compare")
    data = run.config.data
    folders = {"data_dir": data.dir, "manual_dir": data.manual_dir, "classes": run.classes}
    stream, section = data.streams.source, choose(settings.eval_sections(run.config), eval_set, "--set")
    days = sources.open_source(stream.dataset, stream.split, **folders)
    nights = sources.open_source(section["dataset"], section["split"], **folders)
    features = segments(run.method).penultimate
    return prototype_similarity(
        features, run.variables, (days, stream.get("resize")), (nights, section.get("input_size")), count
    )


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_list("workdir", [], "Run folders to compare.", flag_values=values)
    flags.DEFINE_string("set", "val_night", "Evaluation set of the runs' configs, labeled.", flag_values=values)
    flags.DEFINE_integer("images", 100, "Most images of either domain.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("classes", False, "Show every class.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    cli.use_compilation_cache()
    runs = {workdir: loaded.load(workdir) for workdir in values.workdir}
    width = max(map(len, (*runs, *(name for run in runs.values() for name in run.classes.names))))
    print(f"{'':{width}}{'own':>8}{'other':>8}{'margin':>8}")
    for workdir, run in runs.items():
        own, other = similarity(run, values.set, values.images)
        rows = [(workdir, np.nanmean(own), np.nanmean(other))]
        rows += zip(run.classes.names, own, other, strict=True) if values.classes else ()
        for name, x, y in rows:
            print(f"{name:{width}}{x:8.3f}{y:8.3f}{x - y:8.3f}", flush=True)


if __name__ == "__main__":
    cli.run(main)
