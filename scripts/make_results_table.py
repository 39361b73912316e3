"""Run folders to one Markdown table; runs that differ only in ``-seedN`` become mean ± spread.

    python scripts/make_results_table.py --runs='runs/supervised*,runs/dsr_fpa*' --main=test_night

A row a group of runs. Columns: headline mIoU of every evaluation set, then the means of dynamic and of small classes on
the main set, minutes of training and peak memory. Scores are those of each run's last evaluation, in percent.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from etils import epath

from nightjax import run
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.inference.run_folder import read_evaluations, read_metrics
from nightjax.metrics.table import format_value


class Result(NamedTuple):
    """What one run folder says.

    Attributes:
        sets: evaluation set to its summary.
        finished: whether every set was scored at the run's last step.
        minutes: of training.
        memory: peak, GB.
    """

    sets: dict[str, dict[str, Any]]
    finished: bool
    minutes: float | None
    memory: float | None


def read_run(workdir: epath.Path) -> Result:
    """Reads one run folder.

    Raises:
        UserError: the folder holds no run or no evaluation.
    """
    steps = run.read_config(workdir).train.steps
    evaluations, metrics = read_evaluations(workdir), read_metrics(workdir)
    if not evaluations:
        raise UserError(f"{workdir} holds no evaluation: wait for its first one, or leave the run out")
    seconds, memory = (metrics.get(name, ([], []))[1] for name in ("seconds", "memory_gb"))
    return Result(
        {name: summary for name, (_, summary) in evaluations.items()},
        all(step >= steps for step, _ in evaluations.values()),
        seconds[-1] / 60 if seconds else None,
        max(memory, default=None),
    )


def group_runs(patterns: Sequence[str]) -> dict[str, list[Result]]:
    """Folder name without ``-seedN`` to the runs of that name, in the order of the patterns.

    Raises:
        UserError: a pattern matches no folder.
    """
    groups, seen = {}, set()
    for pattern in patterns:
        folders = [path for path in map(epath.Path, sorted(glob.glob(pattern))) if path.is_dir()]
        if not folders:
            raise UserError(f"--runs={pattern} matches no folder")
        for folder in folders:
            if folder not in seen:
                seen.add(folder)
                groups.setdefault(re.sub(r"-seed\d+$", "", folder.name), []).append(read_run(folder))
    return groups


def main_set(groups: dict[str, list[Result]]) -> str:
    """The set whose class groups are shown: a test set rather than a validation set, never a day set."""
    names = [name for results in groups.values() for result in results for name in result.sets]
    return min(names, key=lambda name: ("day" in name, "test" not in name))


def markdown(groups: dict[str, list[Result]], main: str, published: Mapping[str, Mapping[str, float]]) -> str:
    """The table; columns without any number are left out. ``published`` is column to row to number."""
    names = dict.fromkeys(name for results in groups.values() for result in results for name in result.sets)
    columns: dict[str, Callable[[Result], float | None]] = {}
    for name in sorted(names, key=lambda name: name != main):
        columns[name] = lambda r, name=name: _lookup(r.sets, name, "miou", r.sets.get(name, {}).get("headline"))
    for part in ("dynamic", "small"):
        columns[f"{part}, {main}"] = lambda r, part=part: _lookup(r.sets, main, "groups", part)
    columns |= {"minutes": lambda r: r.minutes, "GB": lambda r: r.memory}
    cells = {title: [format_value([pick(r) for r in runs]) for runs in groups.values()] for title, pick in columns.items()}
    cells |= {title: [format_value([rows.get(name)]) for name in groups] for title, rows in published.items()}
    cells = {title: column for title, column in cells.items() if set(column) != {"-"}}
    head = ["run", "seeds", *cells]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for i, (name, runs) in enumerate(groups.items()):
        unfinished = sum(not r.finished for r in runs)
        seeds = f"{len(runs)} ({unfinished} unfinished)" if unfinished else str(len(runs))
        lines.append(f"| {' | '.join([name, seeds, *(column[i] for column in cells.values())])} |")
    return "\n".join(lines) + "\n"


def _read_published(path: str) -> dict[str, dict[str, float]]:
    if not path:
        return {}
    try:
        return json.loads(epath.Path(path).read_text())
    except ValueError as error:
        raise UserError(f"--published={path} is no JSON file of column to row to number: {error}") from error


def _lookup(tree: Any, *keys: str | None) -> float | None:
    for key in keys:
        tree = tree.get(key) if tree else None
    return tree


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_list("runs", None, "Run folders or patterns, separated by commas.", flag_values=values)
    flags.DEFINE_string("main", "", "Evaluation set whose class groups are shown.", flag_values=values)
    flags.DEFINE_string("published", "", "JSON file: column to row to a published number, shown beside ours.", flag_values=values)
    cli.parse(values, argv, required=("runs",))
    groups = group_runs(values.runs)
    chosen = values.main or main_set(groups)
    if not any(chosen in result.sets for results in groups.values() for result in results):
        raise UserError(f"--main={chosen} is no evaluation set of these runs")
    print(markdown(groups, chosen, _read_published(values.published)), end="")


if __name__ == "__main__":
    cli.run(main)
