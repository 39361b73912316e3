"""Reading what a run left in its folder: metrics, evaluations, config."""

import json
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

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
    if not {"train", "eval"} <= set(config):
        raise UserError(f"{path} is damaged (it has no 'train' or no 'eval'); restore it or leave the run out")
    return config


def read_metrics(workdir: epath.Path) -> dict[str, tuple[list[int], list[float]]]:
    """Reads `metrics.jsonl` as name to (steps, values), without a line cut short by a crash."""
    path = workdir / "metrics.jsonl"
    metrics: dict[str, tuple[list[int], list[float]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                steps, values = metrics.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(value)
    return metrics


def read_evaluations(path: epath.Path) -> Evaluations:
    """Reads each set's latest evaluation in a run folder, or one file `eval/<set>/<step>.json`."""
    if path.is_file():
        return {path.parent.name: (step_of(path), _read_evaluation(path))}
    found: Evaluations = {}
    folder = path / "eval"
    for one_set in sorted(folder.iterdir(), key=str) if folder.is_dir() else ():
        files = [file for file in one_set.iterdir() if file.suffix == ".json"] if one_set.is_dir() else []
        if files:
            latest = max(files, key=step_of)
            found[one_set.name] = (step_of(latest), _read_evaluation(latest))
    return found


def step_of(path: epath.Path) -> int:
    """The number a file name begins with, -1 without one."""
    match = re.match(r"\d+", path.name)
    return int(match[0]) if match else -1


def _read_evaluation(path: epath.Path) -> dict[str, Any]:
    summary = read_json(path)
    if not {"miou", "headline", "iou", "support", "groups"} <= set(summary):
        raise UserError(f"{path} is not an evaluation: give an eval/<set>/<step>.json of a run")
    return summary


def read_json(path: epath.Path) -> dict[str, Any]:
    """Reads a JSON object; UserError if the file is not JSON."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON: delete it or evaluate again") from None
