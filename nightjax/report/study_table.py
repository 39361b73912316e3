# SPDX-License-Identifier: Apache-2.0
"""The table of a study and what it says: means over seeds, and differences seed by seed."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import read_text
from nightjax.core.studies import Study
from nightjax.metrics.table import format_value, mean_and_spread
from nightjax.report.results_table import GROUPS
from nightjax.report.run_folder import read_config, read_json, read_metrics, step_of

NOTE = "study.json"
"""File in a run folder with the command that made it and nightjax's version."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one run of a study has.

    Attributes:
        values: column to score in percent, the mean over the last evaluations; None where nothing was measured.
        steps: of this run.
        seconds: of its training, evaluation left out.
    """

    values: Mapping[str, float | None]
    steps: int
    seconds: float


def run_folder(root: str, study: Study, name: str, seed: int) -> epath.Path:
    """Where a run of a study lies, and of every other study under ``root`` that has the same run."""
    return epath.Path(root) / "runs" / study.folder(name, seed)


def read_scores(folder: epath.Path, study: Study) -> Scores | None:
    """Scores of one run, or None while it is missing or unfinished; a run that scores nothing has none when it is done.

    Raises:
        UserError: a set was scored fewer times than the study averages over.
    """
    if not (folder / "config.json").exists():
        return None
    config = read_config(folder)
    steps = config["train"]["steps"]
    if not any(config["eval"]["sets"].values()):
        done = (folder / "checkpoints" / f"{steps:07d}").exists()
        return Scores({}, steps, _seconds(folder)) if done else None
    columns: dict[str, list[float | None]] = {}
    for title, one_set in study.sets.items():
        files = sorted((folder / "eval" / one_set).glob("*.json"), key=step_of)
        if not files or step_of(files[-1]) < steps:
            return None
        if len(files) < study.last:
            raise UserError(
                f"{folder} was scored {len(files)} times on {one_set}, and study {study.name!r} takes the mean of the "
                f"last {study.last}: set its `every` smaller and run again"
            )
        for file in files[-study.last :]:
            for column, value in _columns(read_json(file), title, study).items():
                columns.setdefault(column, []).append(value)
    means = {column: mean_and_spread(values)[0] for column, values in columns.items()}
    return Scores(means, steps, _seconds(folder))


def _seconds(folder: epath.Path) -> float:
    return read_metrics(folder).get("seconds", ([], [0.0]))[1][-1]


def _columns(summary: Mapping[str, Any], title: str, study: Study) -> dict[str, float | None]:
    """Scores of one evaluation by column."""
    scores: dict[str, float | None] = {title: summary["miou"].get(summary["primary"])}
    if title == next(iter(study.sets)):
        scores |= {group: summary["groups"].get(group) for group in GROUPS}
        scores |= {name: summary["iou"].get(name) for name in study.classes}
    return scores


def read_all(root: str, study: Study) -> dict[str, dict[int, Scores]]:
    """Name of every run to seed to its scores, of the runs that are finished."""
    found: dict[str, dict[int, Scores]] = {}
    for name in study.runs:
        scores = {seed: read_scores(run_folder(root, study, name, seed), study) for seed in study.seeds}
        found[name] = {seed: one for seed, one in scores.items() if one is not None}
    return found


def markdown(root: str, study: Study, remake: str = "") -> str:
    """The study as Markdown: question, table, differences, and what it cost.

    Args:
        root: folder of all studies' runs.
        study: the study.
        remake: command that makes the table, for a reader.
    """
    found = read_all(root, study)
    head, *rows = cells(study, found)
    lines = [f"**{study.question}**", "", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        *(f"- {fact}" for fact in (*facts(study, found), *not_run(study, found))),
        "",
        cost(root, study, found),
    ]
    if remake:
        lines[-1] += f" Made by `{remake}`."
    return "\n".join(lines) + "\n"


def cells(study: Study, found: Mapping[str, Mapping[int, Scores]]) -> list[list[str]]:
    """The table row by row, its head first; rows without a finished run and columns that no run has are left out."""
    titles = [title for title in _titles(study) if any(_measured(found, title))]
    rows = [["run", "steps", "seeds", *titles]]
    for name, run in study.runs.items():
        scores = found[name]
        if not scores:
            continue
        values = [format_value([one.values.get(title) for one in scores.values()]) for title in titles]
        rows.append([run.title or name, _steps(study, found, name), str(len(scores)), *values])
    return rows


def not_run(study: Study, found: Mapping[str, Mapping[int, Scores]]) -> list[str]:
    """A line that names the runs of which no seed is finished, if there are any."""
    names = [run.title or name for name, run in study.runs.items() if not found[name]]
    return [f"Not run yet: {'; '.join(names)}."] if names else []


def cost(root: str, study: Study, found: Mapping[str, Mapping[int, Scores]]) -> str:
    """Hours of training, versions of nightjax, and what a score is the mean of."""
    hours = sum(one.seconds for scores in found.values() for one in scores.values()) / 3600
    versions = sorted({_version(run_folder(root, study, name, seed)) for name in found for seed in found[name]})
    mean = f" Scores are means over the last {study.last} evaluations." if study.last > 1 else ""
    return f"{hours:.1f} hours of training, nightjax {', '.join(versions) or 'unknown'}.{mean}"


def facts(study: Study, found: Mapping[str, Mapping[int, Scores]]) -> list[str]:
    """One line for each pair that the study compares: the mean difference, its spread, and whether all seeds agree."""
    lines = []
    for first, second in study.compare:
        titles = [study.runs[name].title or name for name in (first, second)]
        seeds = sorted(set(found[first]) & set(found[second]))
        parts = []
        for title in _titles(study):
            pairs = [(found[first][seed].values.get(title), found[second][seed].values.get(title)) for seed in seeds]
            differences = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
            if differences:
                parts.append(f"{title} {_difference(differences)}")
        if parts:
            lines.append(f"{titles[0]} minus {titles[1]}, seed by seed: {'; '.join(parts)}.")
    return lines


def _difference(differences: Sequence[float]) -> str:
    mean, spread = mean_and_spread(differences)
    assert mean is not None
    if spread is None:
        return f"{mean:+.1f} (one seed)"
    agree = all(one > 0 for one in differences) or all(one < 0 for one in differences)
    word = "" if agree and abs(mean) > spread else ", within the spread"
    return f"{mean:+.1f} ± {spread:.1f}{word}"


def write_between_markers(path: epath.Path, name: str, text: str) -> None:
    """Replaces what a page has between ``<!-- study:NAME -->`` and ``<!-- /study:NAME -->``.

    Raises:
        UserError: the page or its markers are missing.
    """
    begin, end = f"<!-- study:{name} -->", f"<!-- /study:{name} -->"
    page = read_text(path) if path.exists() else ""
    found = re.search(rf"{re.escape(begin)}\n.*?{re.escape(end)}", page, re.DOTALL)
    if not found:
        raise UserError(f"{path} has no lines {begin} and {end}: write them where the table should be")
    path.write_text(f"{page[: found.start()]}{begin}\n{text}{end}{page[found.end() :]}")


def write_note(folder: epath.Path, command: Sequence[str], version: str) -> None:
    """Notes in a run folder how it was made."""
    (folder / NOTE).write_text(json.dumps({"command": list(command), "version": version}, indent=1) + "\n")


def read_note(folder: epath.Path) -> dict[str, Any]:
    """What `write_note` wrote, or nothing."""
    path = folder / NOTE
    return read_json(path) if path.exists() else {}


def _version(folder: epath.Path) -> str:
    return str(read_note(folder).get("version", "unknown"))


def _titles(study: Study) -> list[str]:
    first, *others = study.sets
    return [first, *GROUPS, *study.classes, *others]


def _measured(found: Mapping[str, Mapping[int, Scores]], title: str) -> list[bool]:
    return [one.values.get(title) is not None for scores in found.values() for one in scores.values()]


def _steps(study: Study, found: Mapping[str, Mapping[int, Scores]], name: str) -> str:
    """``1000 + 400``: of the runs that led to it, and its own."""
    parts = [next((str(one.steps) for one in found[run].values()), "?") for run in study.chain(name)]
    return " + ".join(parts)
