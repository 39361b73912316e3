# SPDX-License-Identifier: Apache-2.0
"""Writes a package for a benchmark server from a run, or checks any package.

    nightjax submit --benchmark=dark_zurich --workdir=runs/dsr_fpa --output=upload --manual_dir=DATA
    nightjax submit --benchmark=dark_zurich --check=upload.zip
    nightjax submit --benchmark=acdc --workdir=runs/acdc --output=upload --manual_dir=DATA

Confidences are softmax probabilities of the chosen class. The package is checked after writing; exit code 1 says that
the server would refuse it.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from etils import epath

from nightjax.core import cli
from nightjax.core import config as configs
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data import sources, streams
from nightjax.evaluator import logit_weights
from nightjax.inference.package_check import WARNING, check_package
from nightjax.inference.submission import PACKAGES, predict_source, write_package
from nightjax.metrics.protocol import EvalSet
from nightjax.run import loaded
from nightjax.zoo import benchmarks

TESTS = {
    "dark_zurich": ("dark_zurich/test", "dark_zurich_val"),
    "acdc": ("acdc/fog_test+acdc/night_test+acdc/rain_test+acdc/snow_test", "acdc_night_val"),
    "cityscapes": ("cityscapes_seg/test", "cityscapes_val"),
}
"""Benchmark to the data set of its test images and the evaluation set whose protocol predicts them."""


def main(argv: Sequence[str]) -> None:
    """Writes or checks a package; exit code 1 if it would be refused."""
    values = flags.FlagValues()
    flags.DEFINE_string("benchmark", None, f"Server; one of {', '.join(PACKAGES)}.", flag_values=values)
    flags.DEFINE_string("check", "", "Folder or zip to check; nothing is written.", flag_values=values)
    flags.DEFINE_string("workdir", "", "Folder of the run.", flag_values=values)
    flags.DEFINE_string(
        "output", "", "Folder of the package, new or empty; its zip is written beside it.", flag_values=values
    )
    flags.DEFINE_string(
        "dataset", "", "Data set to predict; by default the benchmark's test images.", flag_values=values
    )
    flags.DEFINE_string("split", "test", "Its split.", flag_values=values)
    flags.DEFINE_string(
        "protocol", "", "Evaluation set whose protocol predicts; by default the benchmark's.", flag_values=values
    )
    flags.DEFINE_float(
        "invalid_below", 0.5, "Confidence below which labelTrainIds_invalid declines a pixel.", flag_values=values
    )
    cli.define_checkpoint(values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("benchmark",))
    configs.choose(PACKAGES, values.benchmark, "benchmark")
    path, names = values.check, None
    if not path:
        path, names = _write(values)
        print(f"wrote {path}")
    faults = check_package(path, values.benchmark, names)
    print("\n".join(faults) if faults else f"{path}: no fault found")
    if not all(fault.startswith(WARNING) for fault in faults):
        sys.exit(1)


def _write(values: flags.FlagValues) -> tuple[epath.Path, list[str] | None]:
    """The zip, and the images it must hold where these are not the official test set."""
    for name in ("workdir", "output"):
        if not values[name].value:
            raise UserError(f"--{name} is missing; or check a package with --check=PATH")
    cli.use_compilation_cache()
    dataset, set_name = TESTS[values.benchmark]
    rule = EvalSet(**configs.choose(benchmarks.EVAL_SETS, values.protocol or set_name, "evaluation set"))
    run = loaded.load(values.workdir, values.network, values.step)
    if not run.classes.same_classes(CITYSCAPES):
        raise UserError(
            f"{values.workdir} tells {len(run.classes)} classes of {run.classes.name} apart, and {values.benchmark} "
            f"scores the {len(CITYSCAPES)} of Cityscapes: submit a run that was trained on those"
        )
    data = run.config.data
    source = sources.open_source(
        values.dataset or dataset,
        values.split,
        data_dir=values.data_dir or data.dir,
        manual_dir=values.manual_dir or data.manual_dir,
    )
    predictions = predict_source(run.predict_fn, source, rule, PACKAGES[values.benchmark].size, logit_weights(rule))
    target = write_package(predictions, values.output, values.benchmark, invalid_below=values.invalid_below)
    return target, streams.record_ids(source, np.arange(len(source))) if values.dataset else None


if __name__ == "__main__":
    cli.run(main)
