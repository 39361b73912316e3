# SPDX-License-Identifier: Apache-2.0
"""What is kept of a finished run of a study: a line of JSON that outlives the run's folder."""

import dataclasses
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from etils import epath

from nightjax.core.config import build
from nightjax.core.errors import UserError
from nightjax.core.files import read_text, write_whole
from nightjax.core.ranges import Count, Range
from nightjax.core.studies import KEPT, Study
from nightjax.metrics.table import mean_and_spread
from nightjax.report.results_table import GROUPS
from nightjax.report.run_folder import read_config, read_evaluations, read_json, read_metrics, step_of

NOTE = "study.json"
"""File in a run folder with the commands that made it and nightjax's version."""

Percent = Annotated[float, Range(0, 100)]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is kept of one evaluation, in percent with three decimals; None where nothing was measured.

    Attributes:
        miou: the primary mIoU.
        groups: mean over a group of classes.
        iou: of every class.
    """

    miou: Percent | None
    groups: dict[str, Percent | None]
    iou: dict[str, Percent | None]


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        run: name of its folder, which tells config, settings and seed apart (`nightjax.core.studies.Study.folder`).
        steps: of this run.
        seconds: of its training, evaluation left out: its steps at their median speed.
        version: of nightjax.
        scores: name of an evaluation set to the last evaluations on it, the latest last.
    """

    run: str
    steps: Count
    seconds: Annotated[float, Range()]
    version: str
    scores: dict[str, tuple[Evaluation, ...]]

    def answers(self, study: Study) -> bool:
        """Whether it has a set that a study asks for; a run that scores nothing has nothing to answer."""
        return not self.scores or not set(study.sets.values()).isdisjoint(self.scores)

    def columns(self, study: Study) -> dict[str, float | None]:
        """Column of a study's table to its score, the mean over the last evaluations; none of a run without scores.

        Raises:
            UserError: a set was scored fewer times than the study averages over.
        """
        columns: dict[str, float | None] = {}
        for title, one_set in study.sets.items():
            if one_set not in self.scores:
                continue
            evaluations = self.scores[one_set][-study.last :]
            if len(evaluations) < study.last:
                raise UserError(
                    f"run {self.run} was scored {len(evaluations)} times on {one_set}, and study {study.name!r} takes "
                    f"the mean of the last {study.last}: set its `every` smaller and run again"
                )
            mean = lambda values: mean_and_spread(list(values))[0]
            columns[title] = mean(one.miou for one in evaluations)
            if one_set == next(iter(study.sets.values())):
                columns |= {group: mean(one.groups.get(group) for one in evaluations) for group in GROUPS}
                columns |= {name: mean(one.iou.get(name) for one in evaluations) for name in study.classes}
        return columns


def of_folder(folder: epath.Path) -> Record | None:
    """The record of a run from its folder, or None while it is missing or unfinished.

    A run is finished once its sets are scored after its last step (optional ones, if they are scored at all); one that
    scores nothing, with its last checkpoint.
    """
    if not (folder / "config.json").exists():
        return None
    config = read_config(folder)
    steps, scores = config["train"]["steps"], {}
    sets = {name: section for name, section in config["eval"]["sets"].items() if section}
    for one_set, section in sets.items():
        files = sorted((folder / "eval" / one_set).glob("*.json"), key=step_of)
        if files and step_of(files[-1]) >= steps:
            scores[one_set] = tuple(_kept(file) for file in files[-KEPT:])
        elif not section.get("optional"):
            return None
    if not scores and not (folder / "checkpoints" / f"{steps:07d}").exists():
        return None
    seconds = _at_median_speed(*read_metrics(folder).get("seconds", ([], [])), steps)
    return Record(folder.name, steps, round(seconds, 1), str(read_note(folder).get("version", "unknown")), scores)


def _at_median_speed(at: list[int], elapsed: list[float], steps: int) -> float:
    """Seconds that so many steps take at their median speed, so that time in which a run was suspended does not count.

    Args:
        at, elapsed: the step and the clock of the run at each line of its log.
        steps: of the run.
    """
    log = itertools.pairwise([(0, 0.0), *zip(at, elapsed, strict=True)])
    speeds = [(now - then) / (step - before) for (before, then), (step, now) in log if step > before]
    return statistics.median(speeds) * steps if speeds else 0.0


def read(path: epath.Path) -> dict[str, Record]:
    """The records of a file by run, the later one of two lines for the same run; none if there is no such file.

    Raises:
        UserError: a line is no record.
    """
    records = {}
    lines = read_text(path).splitlines() if path.exists() else []
    for number, line in ((number, line) for number, line in enumerate(lines, 1) if line.strip()):
        where = f"line {number} of {path}"
        try:
            record = build(Record, dict(json.loads(line)), where)
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{where} is no record of a run; restore the file or delete the line") from error
        records[record.run] = record
    return records


def write(path: epath.Path, records: Mapping[str, Record]) -> None:
    """Writes a file of records, in the order of their names, a line for each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(records[run])) + "\n" for run in sorted(records)]
    write_whole(path, "".join(lines))


def write_note(folder: epath.Path, commands: Iterable[str], version: str) -> None:
    """Notes in a run folder how it was made."""
    (folder / NOTE).write_text(json.dumps({"commands": list(commands), "version": version}, indent=1) + "\n")


def read_note(folder: epath.Path) -> dict[str, Any]:
    """What `write_note` wrote, or nothing."""
    path = folder / NOTE
    return read_json(path) if path.exists() else {}


def _kept(path: epath.Path) -> Evaluation:
    ((_, summary),) = read_evaluations(path).values()
    whole = lambda value: None if value is None else round(float(value), 3)
    all_whole = lambda values: {name: whole(value) for name, value in values.items()}
    return Evaluation(
        whole(summary["miou"][summary["primary"]]), all_whole(summary["groups"]), all_whole(summary["iou"])
    )
