# SPDX-License-Identifier: Apache-2.0
"""Scores a dense matcher on NightStreet, where the true flow is known.

    nightjax match --workdir=runs/uawarpc
    nightjax match --workdir=runs/uawarpc --preset=std --pairs=100
    nightjax match --workdir=runs/uawarpc --step=1000

There are two sets of pairs. "seen" are those the run was trained on, without their flow; they are also the pairs that
it is to align. "unseen" are further streets. The pair agreement is the fraction of static points, seen by both
cameras, whose night and warped day labels are of one class. Writes matching/SET/STEP.json into the run folder and
prints the table.
"""

import json
from collections.abc import Sequence

import jax
from absl import flags

from nightjax.core import cli
from nightjax.core.files import write_whole
from nightjax.core.method import matches
from nightjax.inference.matching import format_scores, score_matcher
from nightjax.nightstreet import PRESETS
from nightjax.run import loaded


def main(argv: Sequence[str]) -> None:
    """Scores both sets."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Run folder of configs/uawarpc.py.", flag_values=values)
    flags.DEFINE_string("step", None, "Checkpoint to load: a step, or best; by default the newest.", flag_values=values)
    flags.DEFINE_enum("preset", "std", sorted(PRESETS), "NightStreet's size.", flag_values=values)
    flags.DEFINE_integer("pairs", 100, "Pairs of each set.", lower_bound=1, flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    cli.use_compilation_cache()
    run = loaded.load(values.workdir, step=values.step)
    matched = jax.jit(run.written(matches(run.method).match))
    match = lambda nights, days: jax.device_get(matched(run.variables, nights, days))
    trained = PRESETS[values.preset].counts["target_pairs"]
    results = {
        "seen": score_matcher(match, values.preset, 0, min(values.pairs, trained)),
        "unseen": score_matcher(match, values.preset, trained, values.pairs),
    }
    for name, result in results.items():
        folder = run.workdir / "matching" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{run.step:07d}.json", json.dumps({"step": run.step} | result, indent=1))
    print(format_scores(results))


if __name__ == "__main__":
    cli.run(main)
