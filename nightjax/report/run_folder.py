# SPDX-License-Identifier: Apache-2.0
"""Reading what a run left in its folder: metrics, evaluations, config."""

import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from nightjax.core import files, metric_lines
from nightjax.core.errors import UserError

Evaluations = dict[str, tuple[int, Mapping[str, Any]]]
"""Set name to (step, what `nightjax.metrics.confusion.summarize` returned)."""


def read_config(workdir: epath.Path) -> dict[str, Any]:
    """The config that a run was started with, as it was written, by an earlier version too.

    Raises:
        UserError: the folder holds no run.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} holds no run (no config.json); give the folder of a run, one that training wrote")
    config = read_json(path)
    train, evaluation = config.get("train"), config.get("eval")
    if not isinstance(train, dict) or not isinstance(train.get("steps"), int):
        raise UserError(f"{path} is damaged (it has no train.steps); restore it or leave the run out")
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("sets"), dict | None):
        raise UserError(f"{path} is damaged (it has no eval.sets); restore it or leave the run out")
    evaluation["sets"] = evaluation.get("sets") or {}
    return config


def read_metrics(workdir: epath.Path) -> dict[str, tuple[list[int], list[float]]]:
    """Reads `metrics.jsonl` as name to (steps, values); lines that are damaged are left out."""
    metrics: dict[str, tuple[list[int], list[float]]] = {}
    for record in metric_lines.read(workdir / "metrics.jsonl")[0]:
        for name, value in record.items():
            if name != "step":
                steps, values = metrics.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(value)
    return metrics


def read_evaluations(path: epath.Path, passed_over: list[str] | None = None) -> Evaluations:
    """Reads each set's latest evaluation in a run folder, or one file `eval/<set>/<step>.json`.

    Args:
        path: of the folder or file.
        passed_over: gets a line for each file that is no evaluation, and the reading goes on.

    Raises:
        UserError: such a file, if nobody collects them.
    """
    if path.is_file():
        return {path.parent.name: (step_of(path), _read_evaluation(path))}
    found: Evaluations = {}
    folder = path / "eval"
    for one_set in sorted(folder.iterdir(), key=str) if folder.is_dir() else ():
        found_files = [file for file in one_set.iterdir() if file.suffix == ".json"] if one_set.is_dir() else []
        if found_files:
            latest = max(found_files, key=step_of)
            try:
                found[one_set.name] = (step_of(latest), _read_evaluation(latest))
            except UserError as error:
                if passed_over is None:
                    raise
                passed_over.append(str(error))
    return found


def read_history(workdir: epath.Path) -> dict[str, list[Mapping[str, Any]]]:
    """All evaluations of each set in a run folder by step; files that are none are left out."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    folder = workdir / "eval"
    for one_set in sorted(folder.iterdir(), key=str) if folder.is_dir() else ():
        paths = [path for path in one_set.iterdir() if path.suffix == ".json"] if one_set.is_dir() else []
        for path in sorted(paths, key=step_of):
            try:
                found.setdefault(one_set.name, []).append(_read_evaluation(path))
            except UserError:
                continue
    return found


def step_of(path: epath.Path) -> int:
    """The number a file name begins with, -1 without one."""
    match = re.match(r"\d+", path.name)
    return int(match[0]) if match else -1


def _read_evaluation(path: epath.Path) -> dict[str, Any]:
    summary = read_json(path)
    tables = ("miou", "iou", "support", "groups")
    scores = all(_is_scores(summary.get(name)) for name in tables) and all(map(_is_percent, summary["iou"].values()))
    same = scores and summary["iou"].keys() == summary["support"].keys()
    if not same or summary.get("primary") not in summary["miou"]:
        raise UserError(f"{path} is not an evaluation: give an eval/<set>/<step>.json of a run, or delete it")
    return summary


def _is_percent(value: float | None) -> bool:
    return value is None or 0 <= value <= 100


def _is_scores(value: Any) -> bool:
    """Whether a value is an object of numbers and nulls."""
    return isinstance(value, dict) and all(one is None or isinstance(one, int | float) for one in value.values())


def read_json(path: epath.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is not JSON, or holds something else.
    """
    return files.read_json(path, dict, "delete it or evaluate again")
