# SPDX-License-Identifier: Apache-2.0
"""The table of a study and what it says: means over seeds, and differences seed by seed."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import read_text
from nightjax.core.studies import Study
from nightjax.metrics.table import format_value, mean_and_spread
from nightjax.report.results_table import GROUPS
from nightjax.report.study_records import Record

Found = Mapping[str, Mapping[int, "Scores"]]
"""Name of every run of a study to seed to its scores, of the runs that are finished."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one run of a study has.

    Attributes:
        values: column to score in percent, the mean over the last evaluations; None where nothing was measured.
        steps: of this run.
        seconds: of its training, evaluation left out.
        version: of nightjax.
    """

    values: Mapping[str, float | None]
    steps: int
    seconds: float
    version: str


def find(study: Study, records: Mapping[str, Record]) -> Found:
    """The scores of a study's runs among the records of all runs.

    Raises:
        UserError: a set was scored fewer times than the study averages over.
    """
    found: dict[str, dict[int, Scores]] = {}
    for name in study.runs:
        at_hand = {seed: records.get(study.folder(name, seed)) for seed in study.seeds}
        found[name] = {
            seed: Scores(one.columns(study), one.steps, one.seconds, one.version)
            for seed, one in at_hand.items()
            if one is not None and one.answers(study)
        }
    return found


def markdown(study: Study, found: Found, remake: str = "") -> str:
    """The study as Markdown: question, table, differences, and what it cost.

    Args:
        study: the study.
        found: its scores.
        remake: command that makes the table, for a reader.
    """
    head, *rows = cells(study, found)
    lines = [f"**{study.question}**", "", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        *(f"- {fact}" for fact in (*facts(study, found), *not_run(study, found))),
        "",
        cost(study, found),
    ]
    if remake:
        lines[-1] += f" Made by `{remake}`."
    return "\n".join(lines) + "\n"


def cells(study: Study, found: Found) -> list[list[str]]:
    """The table row by row, its head first; rows without a finished run and columns that no run has are left out."""
    titles = [title for title in _titles(study) if any(_measured(found, title))]
    published = ["published"] if any(run.published is not None for run in study.runs.values()) else []
    rows = [["run", "steps", "seeds", *titles, *published]]
    for name, run in study.runs.items():
        scores = found[name]
        if not scores:
            continue
        values = [format_value([one.values.get(title) for one in scores.values()]) for title in titles]
        values += [format_value([run.published]) for _ in published]
        rows.append([run.title or name, _steps(study, found, name), str(len(scores)), *values])
    return rows


def not_run(study: Study, found: Found) -> list[str]:
    """A line that names the runs of which no seed is finished, if there are any."""
    names = [run.title or name for name, run in study.runs.items() if not found[name]]
    return [f"Not run yet: {'; '.join(names)}."] if names else []


def cost(study: Study, found: Found) -> str:
    """Hours of training, versions of nightjax, and what a score is the mean of."""
    finished = [one for scores in found.values() for one in scores.values()]
    hours = sum(one.seconds for one in finished) / 3600
    versions = sorted({one.version for one in finished})
    mean = f" Scores are means over the last {study.last} evaluations." if study.last > 1 else ""
    return f"{hours:.1f} hours of training, nightjax {', '.join(versions) or 'unknown'}.{mean}"


def facts(study: Study, found: Found) -> list[str]:
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


def _titles(study: Study) -> list[str]:
    first, *others = study.sets
    return [first, *GROUPS, *study.classes, *others]


def _measured(found: Found, title: str) -> list[bool]:
    return [one.values.get(title) is not None for scores in found.values() for one in scores.values()]


def _steps(study: Study, found: Found, name: str) -> str:
    """``1000 + 400``: of the runs whose weights led to it, and its own."""
    parts: list[str] = []
    while name:
        parts.insert(0, next((str(one.steps) for one in found[name].values()), "?"))
        name = study.runs[name].start
    return " + ".join(parts)
