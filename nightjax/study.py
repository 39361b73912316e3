# SPDX-License-Identifier: Apache-2.0
"""Runs what is missing of a study, and shows its table and its differences.

    nightjax study --study=night_parts
    nightjax study --study=night_parts --seeds=0 --only=both --dry_run
    nightjax study --study=masking --args=data=cityscapes_to_dark_zurich,steps=40000 --sets=night=dark_zurich_val
    nightjax study --study=my_question.toml
    nightjax study --study=night_parts --run=false --write=docs/results.md

A study is a question, runs and seeds in a TOML file; nightjax list studies names those that come along. The runs of all
studies lie in ROOT/runs, so studies share the runs that they have in common. A finished run is not made again and an
interrupted one goes on, so the same command goes on with the study. A run is known by its config and settings, not by
the code that made it: after a change of the code, choose another --root.

The scores of every finished run are also kept as a line of ROOT/records.jsonl, and tables are made from these lines.
So you can delete run folders, or bring together what several machines have run: concatenate their files. A recorded run
is made again only if a run that is missing needs it. --records names another file.

To run a study on your own data, add arguments to every run's config by --args, replace settings in every run by --set,
and say by --sets what the columns of the table are scored on. The configs of all runs are checked before the first one
is made. The table is printed, and ROOT/STUDY/study.html has it with charts, differences and commands. --write also puts
it between the study's markers in a page of Markdown.
"""

import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from absl import flags
from etils import epath

import nightjax
from nightjax.core import cli, studies
from nightjax.core.errors import UserError, suggestion
from nightjax.report import results_table, study_page, study_records, study_table
from nightjax.report.study_records import Record
from nightjax.run import settings

AFTER = "after.done"
"""File in a run folder that says that the commands after its training are done."""


def main(argv: Sequence[str]) -> None:
    """Runs the study and prints its table."""
    values = flags.FlagValues()
    flags.DEFINE_string("study", None, "Name of a study, or a TOML file.", flag_values=values)
    flags.DEFINE_string("root", "runs/studies", "Folder of all studies' runs.", flag_values=values)
    flags.DEFINE_string("records", "", "File of scores; ROOT/records.jsonl by default.", flag_values=values)
    flags.DEFINE_list("only", [], "Runs to make, with those that they need; by default all.", flag_values=values)
    flags.DEFINE_list("seeds", [], "Seeds; by default the study's own.", flag_values=values)
    flags.DEFINE_string("args", "", "More config arguments of every run, such as data=folder.", flag_values=values)
    flags.DEFINE_multi_string(
        "set", [], "KEY=VALUE of every run's config, such as train.batch=8; may be repeated.", flag_values=values
    )
    flags.DEFINE_list("sets", [], "Sets that are shown, each SET or TITLE=SET; by default its own.", flag_values=values)
    flags.DEFINE_bool("run", True, "Run what is missing; --run=false shows what is there.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Print the commands of what is missing.", flag_values=values)
    flags.DEFINE_string("write", "", "Page whose markers get the table, such as docs/results.md.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("study",))
    changes = _changes(values.set)
    study = _with_settings(studies.read(values.study).with_arguments(values.args), changes)
    seeds = [_seed(word) for word in values.seeds] or study.seeds
    sets = results_table.titled_sets(values.sets) or study.sets
    study = dataclasses.replace(study, seeds=tuple(sorted({*study.seeds, *seeds})), sets=sets)
    kept = epath.Path(values.records or f"{values.root}/records.jsonl")
    records = study_records.read(kept)
    runs = [(name, seed) for seed in seeds for name in missing(study, values.root, seed, records, values.only)]
    if values.run:
        check(study)
    if values.dry_run:
        print("".join(f"{line}\n" for run in runs for line in study.commands(values.root, *run).lines), end="")
        return
    for run in runs if values.run else ():
        _run(study, values.root, *run)
        _keep(study, values.root, kept)
    records = _keep(study, values.root, kept)
    words = [f"--study={values.study}"] + ([f"--args={values.args}"] if values.args else [])
    words += [f"--sets={','.join(values.sets)}"] if values.sets else []
    words += [f"--set={key}={value}" for key, value in changes.items() if not key.startswith(studies.PLACES)]
    remake, found = shlex.join(["nightjax", "study", *words]), study_table.find(study, records)
    table = study_table.markdown(study, found, remake)
    print(table, end="")
    print(f"\nwrote {study_page.write(values.root, study, found, remake)}")
    if values.write:
        study_table.write_between_markers(epath.Path(values.write), study.name, table)


def _with_settings(study: studies.Study, changes: Mapping[str, str]) -> studies.Study:
    """The study with settings replaced in every run; those of a stream, in the runs that read such a stream."""
    streams = {name: set(settings.load(run.config).data.streams) for name, run in study.runs.items()}
    runs = {}
    for name, run in study.runs.items():
        others = set().union(*streams.values()) - streams[name]
        kept = {key: value for key, value in changes.items() if not key.startswith(_keys(others))}
        runs[name] = dataclasses.replace(run, settings={**run.settings, **kept})
    return dataclasses.replace(study, runs=runs)


def _keys(streams: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"data.streams.{stream}." for stream in streams)


def check(study: studies.Study) -> None:
    """Reads the configs of all runs, so that a mistake in the last one is found before the first one is made.

    Raises:
        UserError: a config or a setting is wrong, or a run is not scored on what the study asks for, or too rarely.
    """
    found: set[str] = set()
    for name in study.runs:
        commands = study.commands("", name, 0)
        config = settings.override(settings.load(commands.config), commands.settings)
        settings.check(config)
        scored, steps, every = sorted(settings.eval_sections(config)), config.train.steps, config.eval.every
        found.update(scored)
        if scored and not set(scored) & set(study.sets.values()):
            raise UserError(
                f"run {name!r} of study {study.name!r} is scored on {scored}, and on nothing that the study shows: say "
                f"what is meant, such as --sets={next(iter(study.sets))}={scored[0]}"
            )
        if scored and -(-steps // max(every, 1)) < study.last:
            raise UserError(
                f"run {name!r} of study {study.name!r} has {steps} steps and is scored every {every}, and the study "
                f"takes the mean of the last {study.last} scores: make its `every` or eval.every smaller"
            )
    if unknown := sorted(set(study.sets.values()) - found):
        raise UserError(f"no run of study {study.name!r} is scored on {unknown[0]!r}{suggestion(unknown[0], found)}")


def missing(
    study: studies.Study, root: str, seed: int, records: Mapping[str, Record], only: Sequence[str] = ()
) -> list[str]:
    """Names of the runs to make, in an order in which each finds what it needs.

    Args:
        study: the study.
        root: folder of all studies' runs.
        seed: of the runs.
        records: runs whose scores are kept, which need no folder unless a missing run needs them.
        only: names of runs that are wanted; all by default.
    """
    found: list[str] = []
    for name in reversed(study.order(only)):
        recorded = records.get(study.folder(name, seed))
        is_needed = any(name in study.runs[one].needs() for one in found)
        kept = recorded is not None and recorded.answers(study) and not is_needed
        if not kept and _finished(study, root, name, seed) is None:
            found.insert(0, name)
    return found


def _finished(study: studies.Study, root: str, name: str, seed: int) -> Record | None:
    folder = study.path(root, name, seed)
    record = study_records.of_folder(folder)
    complete = record is not None and record.answers(study)
    return record if complete and (not study.runs[name].after or (folder / AFTER).exists()) else None


def _keep(study: studies.Study, root: str, path: epath.Path) -> dict[str, Record]:
    """All records, those of the study's run folders among them, which are added to the file."""
    records = study_records.read(path)
    at_hand = [_finished(study, root, name, seed) for name in study.runs for seed in study.seeds]
    changed = {one.run: one for one in at_hand if one is not None and records.get(one.run) != one}
    if changed:
        study_records.write(path, records | changed)
    return records | changed


def _run(study: studies.Study, root: str, name: str, seed: int) -> None:
    commands, folder = study.commands(root, name, seed), study.path(root, name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    study_records.write_note(folder, commands.lines, nightjax.__version__)
    if not (folder / "config.json").exists():  # Else training has begun, and what it reads is there.
        _call(commands.before)
    record = study_records.of_folder(folder)
    if record is None:
        _call([commands.train])
        record = study_records.of_folder(folder)
    if record is None:
        raise UserError(f"{folder} was stopped before its end; the same command resumes the study")
    if not record.answers(study):
        raise UserError(f"{folder} was scored on {sorted(record.scores)}; name these in `sets` of study {study.name!r}")
    if commands.after:
        _call(commands.after)
        (folder / AFTER).touch()


def _call(commands: Iterable[Sequence[str]]) -> None:
    for words in commands:
        print(shlex.join(words), flush=True)
        code = subprocess.run([sys.executable, "-m", "nightjax", *words[1:]], check=False).returncode
        if code:
            raise UserError(
                f"a command ended with exit code {code}: {shlex.join(words)}; once it runs, the same study goes on"
            )


def _changes(words: Sequence[str]) -> dict[str, str]:
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UserError(f"--set={word} must be KEY=VALUE, such as train.batch=8")
        changes[key] = value
    return changes


def _seed(word: str) -> int:
    if not word.isdecimal():
        raise UserError(f"--seeds has {word!r}; give whole numbers, such as 0,1,2")
    return int(word)


if __name__ == "__main__":
    cli.run(main)
