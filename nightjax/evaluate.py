"""Scores trained runs on evaluation sets; several runs, of different seeds, give mean and spread.

python -m nightjax.evaluate --workdir=runs/dsr_fpa
python -m nightjax.evaluate --workdir=runs/seed0,runs/seed1,runs/seed2 --data=cityscapes_to_dark_zurich
python -m nightjax.evaluate --workdir=runs/dsr_fpa --sets=dark_zurich_val_windows,acdc_night_val --output=night.json
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import flags
from etils import epath

from nightjax.core import cli
from nightjax.evaluator import Evaluator
from nightjax.metrics import table
from nightjax.run import loaded, settings
from nightjax.zoo import benchmarks


def main(argv: Sequence[str]) -> None:
    """Evaluates finished or running runs; several, of different seeds, give mean and spread."""
    values = flags.FlagValues()
    flags.DEFINE_list(
        "workdir", None, "Folder of the run, or several of one method with different seeds.", flag_values=values
    )
    flags.DEFINE_string("network", "", "student or teacher; by default what the run evaluates.", flag_values=values)
    flags.DEFINE_string("step", None, "Step of the checkpoint, or best; the newest by default.", flag_values=values)
    flags.DEFINE_string("data", "", "Benchmark whose sets to evaluate, instead of the run's.", flag_values=values)
    flags.DEFINE_list("sets", [], "Some of these sets, or others by name.", flag_values=values)
    flags.DEFINE_string("output", "", "JSON file for the results of all runs.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Where prepared data sets are kept.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Where downloaded files are.", flag_values=values)
    cli.parse(values, argv, required=("workdir",))
    cli.use_compilation_cache()
    results = {}
    for workdir in values.workdir:
        run = loaded.load(workdir, values.network, values.step)
        config, own = ml_collections.ConfigDict(run.config.to_dict()), settings.eval_sections(run.config)
        config.eval.sets = benchmarks.evaluation_sets(values.data, tuple(values.sets), own)
        config.eval.network = run.network
        config.data.dir = values.data_dir or config.data.dir
        config.data.manual_dir = values.manual_dir or config.data.manual_dir
        evaluator = Evaluator(settings.complete(config), run.method, run.mesh, epath.Path(workdir), run.config)
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
        epath.Path(output).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    cli.run(main)
