# SPDX-License-Identifier: Apache-2.0
"""Studies: a question, the runs that answer it, and the differences to look at, as data in a TOML file.

    question = "Which part of DANNet helps by night?"
    seeds = [0, 1, 2]
    sets = {night = "test_night", day = "val_day"}

    [runs.source]
    config = "supervised:steps=1000"

    [runs.dannet]
    config = "dannet:steps=400"
    start = "source"

Texts name other runs of the study: ``{RUN}`` is the folder of a run of the same seed, ``{RUN:name}`` that folder's
name, ``{folder}`` the run's own, and ``{seed}`` the seed. nightjax's own studies lie in ``configs/studies`` and are
found by name.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from etils import epath

from nightjax.core import config_files
from nightjax.core.config import build
from nightjax.core.errors import UserError, suggestion
from nightjax.core.ranges import Range, Seed
from nightjax.core.same_run import CHANGEABLE

PLACES = (*(key for key in CHANGEABLE if key != "eval."), "eval.last")
"""Beginnings of settings that change neither what a run trains nor the scores that a study reads: where it finds and
writes its files, on which devices, and how many earlier evaluations it makes."""

KEPT = 5
"""Evaluations of a run that are made and kept of it, and the most that a study can average over."""

FOLDER, SEED = OWN = ("folder", "seed")
"""What stands for a run's own folder, and for its seed."""

NAMED = re.compile(r"\{(\w[\w.-]*)(:name)?\}")
"""What a text names: a run, or one of `OWN`."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of a study's table, run once for each seed.

    Attributes:
        config: config and arguments, as ``--config`` takes them.
        title: of the row; the name of the run by default.
        start: run of this study whose weights this one starts from, or "".
        settings: key of the config to its value.
        before: commands of nightjax that make what the run reads, such as pseudo-labels of another run.
        after: commands of nightjax that make of the run what others read, such as images that it translates.
        published: what a paper reports, in percent, or None.
    """

    config: str
    title: str = ""
    start: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    published: Annotated[float, Range(0, 100)] | None = None

    def needs(self) -> list[str]:
        """Names of the runs that must be there before this one can be made."""
        texts = [self.config, *map(str, self.settings.values()), *self.before, *self.after]
        named = [name for text in texts for name, _ in NAMED.findall(text) if name not in OWN]
        return list(dict.fromkeys([self.start, *named] if self.start else named))


@dataclasses.dataclass(frozen=True)
class Commands:
    """What makes a run.

    Attributes:
        before: commands before its training, as words.
        config: of its training, with arguments.
        settings: key of the config to its value.
        workdir: its folder.
        after: commands after its training.
    """

    before: list[list[str]]
    config: str
    settings: dict[str, str]
    workdir: str
    after: list[list[str]]

    @property
    def train(self) -> list[str]:
        """The command of its training."""
        flags = [f"--config.{key}={value}" for key, value in self.settings.items()]
        return ["nightjax", "train", f"--config={self.config}", *flags, f"--workdir={self.workdir}"]

    @property
    def lines(self) -> list[str]:
        """All of them, in their order, for a shell."""
        return [shlex.join(words) for words in (*self.before, self.train, *self.after)]


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        question: in one sentence.
        sets: title of a column to the evaluation set; the groups of classes are those of the first.
        runs: name to `Run`, in the order of the rows.
        seeds: of every run.
        last: scores are means over so many last evaluations, since single checkpoints swing; at most `KEPT`.
        every: steps between evaluations; 0 leaves the configs' own.
        classes: classes that have a column of their own, scored on the first set.
        compare: pairs of runs whose difference is given, seed by seed: the first minus the second.
        name: of the study.
    """

    question: str
    sets: dict[str, str]
    runs: dict[str, Run]
    seeds: tuple[Seed, ...] = (0, 1, 2)
    last: Annotated[int, Range(1, KEPT)] = 1
    every: Annotated[int, Range()] = 0
    classes: tuple[str, ...] = ()
    compare: tuple[tuple[str, str], ...] = ()
    name: str = ""

    def order(self, only: Iterable[str] = ()) -> list[str]:
        """Names of runs, each after those that it needs.

        Args:
            only: the runs that are wanted; what they need comes along. All by default.

        Raises:
            UserError: there is no such run.
        """
        found: list[str] = []
        for name in tuple(only) or self.runs:
            for needed in self.chain(name):
                if needed not in found:
                    found.append(needed)
        return found

    def chain(self, name: str, before: tuple[str, ...] = ()) -> list[str]:
        """The runs that lead to a run, each after those that it needs, and the run itself last.

        Args:
            name: of the run.
            before: runs that need this one.

        Raises:
            UserError: there is no such run, or one needs itself.
        """
        if name not in self.runs:
            raise UserError(f"study {self.name!r} has no run {name!r}{suggestion(name, self.runs)}")
        if name in before:
            raise UserError(f"study {self.name!r}: run {name!r} needs itself")
        found: dict[str, None] = {}
        for needed in self.runs[name].needs():
            found |= dict.fromkeys(self.chain(needed, (*before, name)))
        return [*found, name]

    def settings(self, name: str) -> dict[str, Any]:
        """Key of a run's config to its value, with those that say when it is scored: only what is kept is evaluated."""
        every = {"eval.every": self.every} if self.every else {}
        return every | {"eval.last": KEPT} | self.runs[name].settings

    def folder(self, name: str, seed: int) -> str:
        """Name of a run's folder, the same in every study that trains the same way: its config, a hash and its seed.

        The hash is of the configs and settings of the run and of those that lead to it. Left out are settings that say
        no more than where files lie and how they are read, and when a run was scored that others start from.
        """
        told = []
        for one in self.chain(name):
            without, run = PLACES if one == name else CHANGEABLE, self.runs[one]
            text = lambda value: _filled(value, lambda other: other if other in OWN else self.folder(other, 0))
            kept = {key: text(str(value)) for key, value in self.settings(one).items() if not key.startswith(without)}
            told.append((text(run.config), kept, *map(text, run.before + run.after)))
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
        words = re.sub(r"[^\w.]+", "-", NAMED.sub("", self.runs[name].config))[:80].strip("-")
        return f"{words}-{digest}-seed{seed}"

    def path(self, root: str, name: str, seed: int) -> epath.Path:
        """Where a run lies, and of every other study under ``root`` that has the same run."""
        return epath.Path(root) / "runs" / self.folder(name, seed)

    def commands(self, root: str, name: str, seed: int) -> "Commands":
        """The commands that make a run in a folder under ``root``."""
        folder, run = self.path(root, name, seed), self.runs[name]
        own = {FOLDER: str(folder), SEED: str(seed)}
        text = lambda value: _filled(value, lambda other: own.get(other) or str(self.path(root, other, seed)))
        keys = {"seed": str(seed)} | ({"train.init": str(self.path(root, run.start, seed))} if run.start else {})
        keys |= {key: text(str(value)) for key, value in self.settings(name).items()}
        before, after = ([shlex.split(text(command)) for command in commands] for commands in (run.before, run.after))
        return Commands(before, text(run.config), keys, str(folder), after)

    def with_arguments(self, arguments: str) -> "Study":
        """The study with arguments added to every run's config."""
        more = lambda config: config + ("," if ":" in config else ":") + arguments if arguments else config
        runs = {name: dataclasses.replace(run, config=more(run.config)) for name, run in self.runs.items()}
        return dataclasses.replace(self, runs=runs)


def _filled(text: str, place: Callable[[str], str]) -> str:
    """A text with the places of the runs that it names, or with ``:name`` their last parts."""

    def of(found: re.Match) -> str:
        where = place(found[1])
        return where.rpartition("/")[2] if found[2] else where

    return NAMED.sub(of, text)


def names() -> list[str]:
    """The names of nightjax's own studies."""
    return sorted(path.stem for path in (config_files.folder() / "studies").glob("*.toml"))


def read(name: str | os.PathLike) -> Study:
    """A study by its name, or by the path of a TOML file.

    Raises:
        UserError: no such study, or a key or value in it that is none.
    """
    path = pathlib.Path(name)
    if path.suffix != ".toml":
        if os.fspath(name) not in names():
            raise UserError(f"--study={name} is no study{suggestion(os.fspath(name), names())}; or give a TOML file")
        path = config_files.folder() / "studies" / f"{name}.toml"
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"--study={name} is missing; give the path of a TOML file, or a name: {names()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}") from error
    return parse(tree, path.stem)


def parse(tree: Mapping[str, Any], name: str) -> Study:
    """The study in a TOML file's tree.

    Raises:
        UserError: a key or value is wrong; names it.
    """
    if "name" in tree:
        raise UserError(f"study {name}.name is not a setting: a study is called as its file")
    study = build(Study, {**tree, "name": name}, f"study {name}")
    if not study.runs or not study.sets or not study.seeds:
        raise UserError(f"study {name!r} needs runs, sets and seeds")
    for run, one in study.runs.items():
        if not re.fullmatch(r"\w[\w.-]*", run) or run in OWN:
            raise UserError(f"study {name!r}: run {run!r} must be a name of letters, digits, '_', '.' and '-'")
        study.chain(run)
        for command in one.before + one.after:
            try:
                words = shlex.split(command)
            except ValueError:  # A quote that does not end.
                words = []
            if words[:1] != ["nightjax"]:
                raise UserError(f"study {name}: {command!r} of run {run!r} must be a command of nightjax")
    for pair in study.compare:
        for run in pair:
            study.chain(run)
    return study
