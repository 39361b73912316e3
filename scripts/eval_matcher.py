"""Scores a matcher on NightStreet, where the true flow is known.

    python scripts/eval_matcher.py --workdir=runs/uawarpc
    python scripts/eval_matcher.py --workdir=runs/uawarpc --preset=std --pairs=100

Two sets of pairs: ``seen``, which the run was trained on (without their flow; they are also the ones it is to align),
    and
``unseen``, further streets. The pair agreement is the share of static points, seen by both cameras, at which the
classes of night and warped day are equal. Writes ``matching/<set>/<step>.json`` into the run's folder and prints the
table.
"""

import json

import jax
import numpy as np
from absl import flags

from nightjax import run
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.metrics import flow as scores
from nightjax.nightstreet import PRESETS, SPLITS
from nightjax.nightstreet.pairs import agreement, render_pair, warp_labels

BATCH = 4
WARPS = ("unmoved", "matched", "true flow")
"""How the day's labels come over the night's: not at all, by the matcher, by the truth."""


def score(loaded: run.Run, match, preset: str, first: int, count: int) -> dict:
    """Summary over ``count`` pairs from position ``first``: of the flow, and of the pair agreement by each warp in
    `WARPS`."""
    total, agreements = None, []  # A pair of two streets has no point in common, and no agreement.
    for start in range(first, first + count, BATCH):
        indices = [min(i, first + count - 1) for i in range(start, start + BATCH)]  # One shape: the last pair again.
        pairs = [render_pair(SPLITS["target_pairs"].first_seed + i, size=PRESETS[preset].size) for i in indices]
        images = (np.stack([pair[light]["image"] for pair in pairs]) for light in ("night", "day"))
        found = jax.device_get(match(loaded.variables, *images))
        for pair, flow, confidence in list(zip(pairs, *found, strict=True))[: first + count - start]:
            sums = scores.flow_sums(flow, pair["flow"], pair["flow_valid"], confidence)
            total = sums if total is None else {name: total[name] + sums[name] for name in sums}
            if pair["flow_valid"].any():
                agreements.append(agreement_by_warp(pair, flow))
    means = np.mean(agreements, axis=0).tolist() if agreements else [None] * len(WARPS)
    return scores.summarise(total) | {"agreement": dict(zip(WARPS, means, strict=True))}


def agreement_by_warp(pair: dict, flow: np.ndarray) -> list[float]:
    """Share of the static points that both views see which have one class, for each of `WARPS`."""
    night, day = pair["night"]["label"], pair["day"]["label"]
    flows = (np.zeros_like(flow), flow, pair["flow"])
    return [agreement(night, warp_labels(day, f), pair["flow_valid"]) for f in flows]


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of a run of configs/uawarpc.py.", flag_values=values)
    flags.DEFINE_string("step", None, "Step of the checkpoint, or best; the newest by default.", flag_values=values)
    flags.DEFINE_enum("preset", "std", sorted(PRESETS), "NightStreet's size.", flag_values=values)
    flags.DEFINE_integer("pairs", 100, "Pairs of each set.", lower_bound=1, flag_values=values)
    cli.parse(values, argv, required=("workdir",))
    cli.use_compilation_cache()
    loaded = run.load(values.workdir, step=values.step)
    if not hasattr(loaded.method, "match"):
        raise UserError(
            f"{values.workdir} is a run of {loaded.config.method.name!r}, not of a matcher (configs/uawarpc.py)"
        )
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
    for name, result in results.items():
        shares = "  ".join(
            f"{warp} {'-' if x is None else f'{100 * x:.1f}'}" for warp, x in result["agreement"].items()
        )
        print(f"\n{name}, pair agreement in %: {shares}")


if __name__ == "__main__":
    cli.run(main)
