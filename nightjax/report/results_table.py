# SPDX-License-Identifier: Apache-2.0
"""One Markdown table of many run folders; runs that differ only in ``-seedN`` become mean ± standard deviation."""

import glob
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from nightjax.core.config import suggestion
from nightjax.core.errors import UserError
from nightjax.core.files import read_json
from nightjax.metrics.table import format_value
from nightjax.report.run_folder import read_config, read_evaluations, read_metrics

GROUPS = ("static", "small", "dynamic")
"""Groups of classes that have columns, in their order."""


class Result(NamedTuple):
    """What one run folder says.

    Attributes:
        sets: evaluation set to its summary.
        finished: whether every set of the run's own was scored at its last step.
        minutes: of training.
        memory: peak, GB.
    """

    sets: Mapping[str, Mapping[str, Any]]
    finished: bool
    minutes: float | None
    memory: float | None


def read_run(workdir: epath.Path) -> Result:
    """Reads one run folder.

    Raises:
        UserError: the folder holds no run or no evaluation.
    """
    config = read_config(workdir)
    evaluations, metrics = read_evaluations(workdir), read_metrics(workdir)
    if not evaluations:
        raise UserError(f"{workdir} holds no evaluation: wait for its first one, or leave the run out")
    steps, own = config["train"]["steps"], config["eval"]["sets"]
    seconds, memory = (metrics.get(name, ([], []))[1] for name in ("seconds", "memory_gb"))
    return Result(
        {name: summary for name, (_, summary) in evaluations.items()},
        all(step >= steps for name, (step, _) in evaluations.items() if name in own),
        seconds[-1] / 60 if seconds else None,
        max(memory, default=None),
    )


def group_runs(patterns: Sequence[str]) -> dict[str, list[Result]]:
    """Folder name without ``-seedN`` to the runs of that name, in the order of the patterns.

    Raises:
        UserError: a pattern matches no folder, or two folders have one name.
    """
    groups, seen = {}, {}
    for pattern in patterns:
        folders = [path for path in map(epath.Path, sorted(glob.glob(pattern))) if path.is_dir()]
        if not folders:
            raise UserError(f"--runs={pattern} matches no folder")
        for folder in folders:
            if (other := seen.get(folder.name, folder)) != folder:
                raise UserError(
                    f"--runs has {other} and {folder}, which would be one seed twice: leave one out or rename it"
                )
            if folder.name not in seen:
                seen[folder.name] = folder
                groups.setdefault(re.sub(r"-seed\d+$", "", folder.name), []).append(read_run(folder))
    return groups


def titled_sets(words: Sequence[str]) -> dict[str, str]:
    """Column title to evaluation set, of words ``SET`` or ``TITLE=SET``.

    Raises:
        UserError: a word names nothing.
    """
    sets = {title: name or title for title, _, name in (word.partition("=") for word in words)}
    if "" in sets:
        raise UserError(f"--sets={','.join(words)} must name sets, each SET or TITLE=SET")
    return sets


def choose_sets(groups: dict[str, list[Result]], words: Sequence[str] = ()) -> dict[str, str]:
    """Column title to evaluation set, in order. The class groups are those of the first.

    Args:
        groups: of `group_runs`.
        words: ``SET`` or ``TITLE=SET``; without any, all sets: those of the runs' own first, by night before by day,
            test before validation.

    Raises:
        UserError: no run was scored on a set.
    """
    names = dict.fromkeys(name for results in groups.values() for result in results for name in result.sets)
    if not words:
        return {name: name for name in sorted(names, key=lambda name: ("." in name, "day" in name, "test" not in name))}
    sets = titled_sets(words)
    for name in sets.values():
        if name not in names:
            raise UserError(f"--sets={name} is no evaluation set of these runs{suggestion(name, names)}")
    return sets


def markdown(
    groups: dict[str, list[Result]],
    sets: Mapping[str, str],
    published: Mapping[str, Mapping[str, float]],
    cost: bool = False,
) -> str:
    """The table; columns without any number are left out.

    Args:
        groups: of `group_runs`.
        sets: of `choose_sets`.
        published: column to row to number.
        cost: whether minutes and memory have columns.
    """
    columns: dict[str, Callable[[Result], float | None]] = {}
    for title, name in sets.items():
        columns[title] = lambda r, name=name: _lookup(r.sets, name, "miou", r.sets.get(name, {}).get("primary"))
        if len(columns) == 1:
            columns |= {part: lambda r, name=name, part=part: _lookup(r.sets, name, "groups", part) for part in GROUPS}
    if cost:
        columns |= {"minutes": lambda r: r.minutes, "GB": lambda r: r.memory}
    cells = {
        title: [format_value([pick(r) for r in runs]) for runs in groups.values()] for title, pick in columns.items()
    }
    cells |= {title: [format_value([rows.get(name)]) for name in groups] for title, rows in published.items()}
    cells = {title: column for title, column in cells.items() if set(column) != {"-"}}
    head = ["run", "seeds", *cells]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for i, (name, runs) in enumerate(groups.items()):
        unfinished = sum(not r.finished for r in runs)
        seeds = f"{len(runs)} ({unfinished} unfinished)" if unfinished else str(len(runs))
        lines.append(f"| {' | '.join([name, seeds, *(column[i] for column in cells.values())])} |")
    return "\n".join(lines) + "\n"


def read_published(path: str) -> dict[str, dict[str, float]]:
    """Published numbers from a JSON file: column to row to number; none for an empty path.

    Raises:
        UserError: the file is not JSON.
    """
    if not path:
        return {}
    found = read_json(path, dict, "write an object of column to row to number")
    for column, rows in found.items():
        if not isinstance(rows, dict) or not all(_is_number(value) for value in rows.values()):
            raise UserError(f"--published={path}: {column!r} is no object of row to number; write one")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lookup(tree: Any, *keys: str | None) -> float | None:
    for key in keys:
        tree = tree.get(key) if tree else None
    return tree
