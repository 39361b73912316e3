# SPDX-License-Identifier: Apache-2.0
"""Runs what is missing of a study, and shows its table and its differences.

    nightjax study --study=night_parts
    nightjax study --study=night_parts --seeds=0 --only=both --dry_run
    nightjax study --study=my_question.toml --args=data=folder --set=data.manual_dir=my_data
    nightjax study --study=night_parts --run=false --write=docs/results.md

A study is a question, runs and seeds in a TOML file; nightjax list studies names those that come along. The runs of all
studies lie in ROOT/runs, so studies share the runs that they have in common. A finished run is not made again and an
interrupted one goes on, so the same command goes on with the study. A run is known by its config and settings, not by
the code that made it: after a change of the code, choose another --root. --args adds arguments to every run's config
and --set replaces a setting in every run: that is how a study is run on your own data. The table is printed, and
ROOT/STUDY/study.html has it with charts, differences and commands. --write also puts it between the study's markers in
a page of Markdown.
"""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

from absl import flags
from etils import epath

import nightjax
from nightjax.core import cli, studies
from nightjax.core.errors import UserError
from nightjax.report import study_page, study_table


def main(argv: Sequence[str]) -> None:
    """Runs the study and prints its table."""
    values = flags.FlagValues()
    flags.DEFINE_string("study", None, "Name of a study, or a TOML file.", flag_values=values)
    flags.DEFINE_string("root", "runs/studies", "Folder of all studies' runs.", flag_values=values)
    flags.DEFINE_list("only", [], "Runs to make, with those that they start from; by default all.", flag_values=values)
    flags.DEFINE_list("seeds", [], "Seeds; by default the study's own.", flag_values=values)
    flags.DEFINE_string("args", "", "More config arguments of every run, such as data=folder.", flag_values=values)
    flags.DEFINE_multi_string(
        "set", [], "KEY=VALUE of every run's config, such as train.batch=8; may be repeated.", flag_values=values
    )
    flags.DEFINE_bool("run", True, "Run what is missing; --run=false shows what is there.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Print the commands instead of running them.", flag_values=values)
    flags.DEFINE_string("write", "", "Page whose markers get the table, such as docs/results.md.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("study",))
    settings = _settings(values.set)
    study = studies.read(values.study).changed(values.args, settings)
    seeds = [_seed(word) for word in values.seeds] or list(study.seeds)
    commands = list(plan(study, values.root, seeds, values.only))
    if values.dry_run:
        print("\n".join(shlex.join(command) for _, command in commands))
        return
    if values.run:
        for folder, command in commands:
            _run(study, folder, command)
    words = [f"--study={values.study}"] + ([f"--args={values.args}"] if values.args else [])
    words += [f"--set={key}={value}" for key, value in settings.items() if not key.startswith(studies.PLACES)]
    remake = shlex.join(["nightjax", "study", *words])
    table = study_table.markdown(values.root, study, remake)
    print(table, end="")
    print(f"\nwrote {study_page.write(values.root, study, remake)}")
    if values.write:
        study_table.write_between_markers(epath.Path(values.write), study.name, table)


def plan(
    study: studies.Study, root: str, seeds: Sequence[int], only: Sequence[str] = ()
) -> Iterator[tuple[epath.Path, list[str]]]:
    """The runs of a study in an order in which each finds what it starts from.

    Args:
        study: the study.
        root: folder of all studies' runs.
        seeds: of every run.
        only: names of runs; all by default.

    Yields:
        Run folder and command.
    """
    for seed in seeds:
        for name in study.order(only):
            run = study.runs[name]
            folder = study_table.run_folder(root, study, name, seed)
            keys: dict[str, object] = {"seed": seed}
            if run.start:
                keys["train.init"] = study_table.run_folder(root, study, run.start, seed)
            keys |= study.settings(name)
            flag = [f"--config.{key}={value}" for key, value in keys.items()]
            yield folder, ["nightjax", "train", f"--config={run.config}", *flag, f"--workdir={folder}"]


def _run(study: studies.Study, folder: epath.Path, command: list[str]) -> None:
    if study_table.read_scores(folder, study):
        return
    print(shlex.join(command), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    study_table.write_note(folder, command, nightjax.__version__)
    code = subprocess.run([sys.executable, "-m", "nightjax.main", *command[2:]], check=False).returncode
    if code:
        raise UserError(
            f"a run ended with exit code {code}: {shlex.join(command)}; once it runs, the same study resumes"
        )
    if study_table.read_scores(folder, study) is None:
        raise UserError(f"{folder} was stopped before its end; the same command resumes the study")


def _settings(words: Sequence[str]) -> dict[str, str]:
    settings = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UserError(f"--set={word} must be KEY=VALUE, such as train.batch=8")
        settings[key] = value
    return settings


def _seed(word: str) -> int:
    if not word.isdecimal():
        raise UserError(f"--seeds has {word!r}; give whole numbers, such as 0,1,2")
    return int(word)


if __name__ == "__main__":
    cli.run(main)
