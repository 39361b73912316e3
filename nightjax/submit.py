"""Packages for benchmark servers: written from a run, or checked, whoever wrote them.

    python -m nightjax.submit --benchmark=dark_zurich --workdir=RUN --output=DIR --manual_dir=DATA
    python -m nightjax.submit --benchmark=dark_zurich --check=PACKAGE.zip

Confidences are true ones: the probability of the chosen class.
"""

import functools
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import flags
from etils import epath
from tqdm import tqdm

from nightjax import run
from nightjax.core import cli
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.data import sources, streams
from nightjax.evaluate import logit_weights
from nightjax.inference.package_check import WARNING, check_package
from nightjax.inference.submission import PACKAGES, write_package
from nightjax.metrics import protocol
from nightjax.metrics.protocol import EvalSet
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
    flags.DEFINE_string("benchmark", None, f"One of {', '.join(PACKAGES)}.", flag_values=values)
    flags.DEFINE_string("check", "", "Folder or zip to check; nothing is written.", flag_values=values)
    flags.DEFINE_string("workdir", "", "Folder of the run.", flag_values=values)
    flags.DEFINE_string(
        "output", "", "Folder of the package, new or empty; its zip is written beside it.", flag_values=values
    )
    flags.DEFINE_string(
        "dataset", "", "Data set to predict; by default the benchmark's test images.", flag_values=values
    )
    flags.DEFINE_string("split", "test", "Its split.", flag_values=values)
    flags.DEFINE_string("protocol", "", "Evaluation set that says how; by default the benchmark's.", flag_values=values)
    flags.DEFINE_float(
        "invalid_below", 0.5, "Confidence below which labelTrainIds_invalid declines.", flag_values=values
    )
    flags.DEFINE_string("which", "", "student or teacher; by default what the run evaluates.", flag_values=values)
    flags.DEFINE_string("step", None, "Step of the checkpoint, or best; the newest by default.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Where prepared data sets are kept.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Where downloaded files are.", flag_values=values)
    cli.parse(values, argv, required=("benchmark",))
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
    loaded = run.load(values.workdir, values.which, values.step)
    data = loaded.config.data
    source = sources.open_source(
        values.dataset or dataset,
        values.split,
        data_dir=values.data_dir or data.dir,
        manual_dir=values.manual_dir or data.manual_dir,
    )
    predictions = predict_source(loaded, source, rule, PACKAGES[values.benchmark].size)
    target = write_package(predictions, values.output, values.benchmark, invalid_below=values.invalid_below)
    return target, streams.record_ids(source, np.arange(len(source))) if values.dataset else None


def predict_source(
    loaded: run.Run, source: sources.Source, rule: EvalSet, size: tuple[int, int]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Image id, train ids uint8 [H, W] and confidence float32 [H, W] of every record, at ``size``, one at a time."""
    weights = logit_weights(rule)

    @jax.jit
    def step(variables: Variables, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        return protocol.predict(functools.partial(loaded.method.predict, variables), image, rule, size, weights)

    batches = streams.make_eval_batches(source, 1, fields=("image",))
    for batch in tqdm(batches, total=len(source), unit="image", disable=None):
        (name,) = streams.record_ids(source, batch["index"])
        label, confidence = jax.device_get(step(loaded.variables, batch["image"]))
        yield name, label[0], confidence[0]


if __name__ == "__main__":
    cli.run(main)
