"""Scores a matcher on NightStreet, where the true flow is known.

    python scripts/eval_matcher.py --workdir=runs/uawarpc
    python scripts/eval_matcher.py --workdir=runs/uawarpc --preset=std --pairs=100

Two sets of pairs: ``seen``, which the run was trained on (without their flow; they are also the ones it is to align), and
``unseen``, further streets. Writes ``matching/<set>/<step>.json`` into the run's folder and prints the table.
"""

from __future__ import annotations

import json

import jax
import numpy as np
from absl import flags

from nightjax import run
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.data.synthetic import PRESETS
from nightjax.data.synthetic.examples import example
from nightjax.metrics import flow as scores

BATCH = 4


def score(loaded: run.Run, match, preset: str, first: int, count: int) -> dict:
    """Summary over ``count`` pairs from position ``first``."""
    total = None
    for start in range(first, first + count, BATCH):
        indices = [min(i, first + count - 1) for i in range(start, start + BATCH)]  # One shape: the last pair again.
        pairs = [example("target_pairs", i, size=PRESETS[preset].size) for i in indices]
        images = (np.stack([pair[name] for pair in pairs]) for name in ("image", "image_ref"))
        found = jax.device_get(match(loaded.variables, *images))
        for pair, flow, confidence in list(zip(pairs, *found, strict=True))[: first + count - start]:
            sums = scores.flow_sums(flow, pair["flow"], pair["flow_valid"], confidence)
            total = sums if total is None else {name: total[name] + sums[name] for name in sums}
    return scores.summarise(total)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of a run of configs/uawarpc.py.", flag_values=values)
    flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest by default.", flag_values=values)
    flags.DEFINE_enum("preset", "std", sorted(PRESETS), "NightStreet's size.", flag_values=values)
    flags.DEFINE_integer("pairs", 100, "Pairs of each set.", lower_bound=1, flag_values=values)
    cli.parse(values, argv, required=("workdir",))
    cli.use_compilation_cache()
    loaded = run.load(values.workdir, step=values.step)
    if not hasattr(loaded.method, "match"):
        raise UserError(f"{values.workdir} is a run of {loaded.config.method.name!r}, not of a matcher (configs/uawarpc.py)")
    trained = PRESETS[values.preset].counts["target_pairs"]
    match = jax.jit(loaded.method.match)
    results = {
        "seen": score(loaded, match, values.preset, 0, min(values.pairs, trained)),
        "unseen": score(loaded, match, values.preset, trained, values.pairs),
    }
    for name, result in results.items():
        folder = loaded.workdir / "matching" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{loaded.step:07d}.json").write_text(json.dumps({"step": loaded.step} | result, indent=1))
    print(scores.format_flow(results))


if __name__ == "__main__":
    cli.run(main)
