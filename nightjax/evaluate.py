# SPDX-License-Identifier: Apache-2.0
"""Scores trained runs on labeled sets.

    nightjax evaluate --workdir=runs/dsr_fpa
    nightjax evaluate --workdir=runs/seed0,runs/seed1,runs/seed2 --data=cityscapes_to_dark_zurich
    nightjax evaluate --workdir=runs/dsr_fpa --sets=dark_zurich_val_windows,acdc_night_val --output=night.json

Writes RUN/eval/SET/STEP.json and prints one table of all sets; of the network that comes with nightjax it only prints.
Several runs of one method, with different seeds, give mean and standard deviation. Scores of a network that the run
does not evaluate, and of other sets, are kept apart.
Several processes share the images: give each the same command, with --distributed on a TPU pod, and elsewhere with
--coordinator, --processes and --process_id.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import flags
from etils import epath

from nightjax import bundled
from nightjax.core import cli
from nightjax.core.files import write_whole
from nightjax.evaluator import Evaluator
from nightjax.metrics import table
from nightjax.run import calibration, loaded, moved, own_data, settings, start
from nightjax.zoo import benchmarks


def main(argv: Sequence[str]) -> None:
    """Evaluates finished or running runs; several, of different seeds, give mean and spread."""
    values = flags.FlagValues()
    flags.DEFINE_list("workdir", None, "Run folder, or several of one method with different seeds.", flag_values=values)
    cli.define_checkpoint(values)
    flags.DEFINE_string("data", "", "Benchmark whose sets to score, instead of the run's own.", flag_values=values)
    flags.DEFINE_list(
        "sets",
        [],
        "Sets to score, of the benchmark or any of nightjax list sets; by default all of the benchmark.",
        flag_values=values,
    )
    flags.DEFINE_string("output", "", "JSON file to write with the results of all runs.", flag_values=values)
    cli.define_folders(values)
    cli.define_processes(values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    cli.join_from_flags(values)
    cli.use_compilation_cache()
    results = {}
    for workdir in values.workdir:
        run = loaded.load(workdir, values.network, values.step)
        started = moved.to_manual_dir(run.config, values.manual_dir) if values.manual_dir else run.config
        config, own = ml_collections.ConfigDict(started.to_dict()), settings.eval_sections(started)
        config.eval.sets = benchmarks.evaluation_sets(values.data, tuple(values.sets), own)
        config.eval.network = run.network
        config.data.dir = values.data_dir or config.data.dir
        config.data.manual_dir = values.manual_dir or config.data.manual_dir
        config = own_data.resolve(settings.complete(config))
        wanted = ml_collections.ConfigDict(config.to_dict())
        wanted.data.streams = {}
        start.look_at_data(wanted)
        place = None if bundled.holds(workdir) else epath.Path(workdir)
        evaluator = Evaluator(config, run.method, run.mesh, place, started, calibration.read(run))
        results[workdir] = evaluator(run.variables, run.step)
    if jax.process_index() == 0:
        _report_all(results, values.output)


def _report_all(results: Mapping[str, Mapping[str, Any]], output: str) -> None:
    """One table of mean and spread over runs, and one JSON: workdir to set to summary."""
    if len(results) > 1:
        names = list(dict.fromkeys(name for sets in results.values() for name in sets))
        print(f"\nmean ± standard deviation of {len(results)} runs: {', '.join(results)}")
        print(table.format_results({name: [sets[name] for sets in results.values() if name in sets] for name in names}))
    if output:
        write_whole(output, json.dumps(results, indent=1))


if __name__ == "__main__":
    cli.run(main)
