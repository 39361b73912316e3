# SPDX-License-Identifier: Apache-2.0
"""Fits what a run's confidences are worth, without labels of nights.

    nightjax calibrate --workdir=runs/dsr_fpa
    nightjax calibrate --workdir=runs/dsr_fpa --images=50
    nightjax calibrate --workdir=runs/dacs --labeled=cityscapes_val --pairs=dark_zurich/pairs@train

Writes RUN/calibration.json: a temperature, and how often labels are right by their corrected confidence. From then on
nightjax predict --abstain=0.9 and nightjax export --abstain=0.9 leave out what the network is too unsure of,
confidences of demo, export and the Python API are corrected, and nightjax evaluate scores both kinds.

The temperature for nights comes from pairs of a night and a day photo of one place. The network's labels of the day,
moved onto the night by one shift and one zoom a pair, are taken for true where they are likelier right than wrong and
neither photo shows a moving class; elsewhere a label counts as right by as much as it is sure. Labeled days say how
likely their labels are right, and their temperature is used where there are no pairs.
docs/calibration.md says how far this can be trusted.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from nightjax import api, bundled
from nightjax.core import cli
from nightjax.core.errors import UserError, choose
from nightjax.core.progress import Progress
from nightjax.data import sources, streams
from nightjax.inference import calibrating
from nightjax.inference.calibrating import Sample
from nightjax.metrics.calibration import PRECISIONS, kept
from nightjax.run import calibration, moved, settings
from nightjax.zoo.benchmarks import EVAL_SETS


def main(argv: Sequence[str]) -> None:
    """Fits and writes."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    cli.define_checkpoint(values)
    flags.DEFINE_string(
        "labeled",
        "",
        "Labeled days: a set of the run or any of nightjax list sets; by default val_day, if the run has it.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "pairs",
        "",
        "Nights with day photos, as DATASET@SPLIT; by default those that the run was trained with, if there were any.",
        flag_values=values,
    )
    flags.DEFINE_integer("images", 200, "How many of each are used at most.", lower_bound=1, flag_values=values)
    cli.define_folders(values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    if bundled.holds(values.workdir):
        raise UserError(f"{values.workdir} came with nightjax and is not written to; copy it and calibrate the copy")
    cli.use_compilation_cache()
    model = api.load(values.workdir, network=values.network, step=values.step, calibrated=False)
    config = moved.to_manual_dir(model.run.config, values.manual_dir) if values.manual_dir else model.run.config
    places = {"data_dir": values.data_dir or config.data.dir, "manual_dir": values.manual_dir or config.data.manual_dir}
    days, pairs = _labeled(config, values.labeled), _pairs(config, values.pairs)
    if days is None and pairs is None:
        raise UserError(
            "there is nothing to calibrate on: give labeled days with --labeled=SET, or nights with day photos with "
            "--pairs=DATASET@SPLIT"
        )

    def examples(dataset: str, split: str, field: str) -> Iterator[dict[str, np.ndarray]]:
        opened = _open(model, config, dataset, split, ("image", field), places)
        return _examples(opened, ("image", field), values.images)

    used, sample, by_day = "", None, 1.0
    facts: dict[str, dict[str, Any]] = {}
    if days is not None:
        used, sample = "day", calibrating.labeled_sample(model.scores, examples(*days, "label"))
        facts["day"] = _facts(sample, days, "it has no labels of the run's classes")
        by_day = facts["day"]["temperature"]
    if pairs is not None:
        moving = model.classes.group("dynamic")
        used, sample = "night", calibrating.night_sample(model.scores, examples(*pairs, "reference"), moving, by_day)
        facts["night"] = _facts(sample, pairs, "no label of its days is likelier right than wrong")
    assert sample is not None  # One of the two was given, and `_facts` raises for what says nothing.
    temperature = facts[used]["temperature"]
    fitted = calibration.Calibration(temperature, sample.counts(temperature), facts)
    for kind, found in facts.items():
        print(_line(kind, found))
    path = calibration.write(model.run, fitted)
    print(f"wrote {path}: temperature {temperature:.3f}, of the {used}s")
    for precision in PRECISIONS:
        print("  " + _level(fitted, precision))
    if used == "day":
        print("  of days alone: by night fewer labels will be right; --pairs=DATASET@SPLIT says how many")


def _facts(sample: Sample | None, of: tuple[str, str], lacking: str) -> dict[str, Any]:
    """What is fitted on a sample.

    Raises:
        UserError: there is none.
    """
    if sample is None:
        raise UserError(f"nothing can be fitted on {'@'.join(of)}: {lacking}")
    return {"of": "@".join(of)} | sample.facts(sample.temperature())


def _labeled(config: Any, name: str) -> tuple[str, str] | None:
    """Data set and split of labeled days."""
    own = settings.eval_sections(config)
    if not name and "val_day" not in own:
        return None
    section = choose(EVAL_SETS | own, name or "val_day", "--labeled")
    return section["dataset"], section["split"]


def _pairs(config: Any, name: str) -> tuple[str, str] | None:
    """Data set and split of nights with day photos."""
    if name:
        dataset, at, split = name.rpartition("@")
        if not (at and dataset and split):
            raise UserError(f"--pairs={name} must be DATASET@SPLIT, such as nightstreet/std_pairs@target_pairs")
        return dataset, split
    target = config.data.streams.get("target")
    if target is None or "reference" not in target.fields:
        return None
    return target.dataset, target.split


def _open(
    model: api.Model, config: Any, dataset: str, split: str, fields: tuple[str, ...], places: dict[str, str]
) -> sources.Source:
    source = sources.open_source(
        dataset, split, classes=model.classes, merges=config.classes.merges.to_dict(), **places
    )
    if len(source) == 0 or (lacking := sorted(set(fields) - set(source[0]))):
        what = f"no {lacking[0]}" if len(source) else "no records"
        raise UserError(f"{dataset}@{split} has {what}: it cannot be calibrated on")
    return source


def _examples(source: sources.Source, fields: tuple[str, ...], most: int) -> Iterator[dict[str, np.ndarray]]:
    """At most so many records, the first ones, decoded."""
    count = min(most, len(source))
    batches = streams.make_eval_batches(source, 1, fields=fields)
    for batch in Progress(itertools.islice(batches, count), total=count, unit="image"):
        yield {field: batch[field][0] for field in fields}


def _line(kind: str, facts: dict[str, Any]) -> str:
    truth = "true labels" if kind == "day" else "labels by day"
    return (
        f"{kind}s, {facts['of']}: {facts['right']:.1f} % as {truth}; temperature {facts['temperature']:.3f}; "
        f"calibration error {facts['ece']:.1f} %, after it {facts['ece_after']:.1f} %"
    )


def _level(fitted: calibration.Calibration, precision: float) -> str:
    least = fitted.fitted_thresholds.get(precision)
    if least is None:
        return f"--abstain={precision:g}: no confidence is enough"
    return (
        f"--abstain={precision:g} keeps {kept(fitted.counts, least)[1]:.0%} of the pixels, of confidence {least:.3f} on"
    )


if __name__ == "__main__":
    cli.run(main)
