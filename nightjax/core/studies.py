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

nightjax's own studies lie in ``configs/studies`` and are found by name.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from etils import epath

from nightjax.core import config_files
from nightjax.core.config import build
from nightjax.core.errors import UserError, suggestion
from nightjax.core.ranges import Range, Seed
from nightjax.core.same_run import CHANGEABLE

PLACES = tuple(key for key in CHANGEABLE if key != "eval.")
"""Beginnings of settings that say where a run finds and writes its files and on which devices, not what it trains."""

KEPT = 5
"""Evaluations of a run that are kept of it, and the most that a study can average over."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of a study's table, run once for each seed.

    Attributes:
        config: config and arguments, as ``--config`` takes them.
        title: of the row; the name of the run by default.
        start: run of this study whose weights this one starts from, or "".
        settings: key of the config to its value.
    """

    config: str
    title: str = ""
    start: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


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
        """Names of runs, each after the one it starts from.

        Args:
            only: the runs that are wanted; what they start from comes along. All by default.

        Raises:
            UserError: there is no such run.
        """
        found: list[str] = []
        for name in tuple(only) or self.runs:
            for needed in self.chain(name):
                if needed not in found:
                    found.append(needed)
        return found

    def chain(self, name: str) -> list[str]:
        """The runs that lead to a run, the first one first and the run itself last.

        Raises:
            UserError: there is no such run, or one starts from itself.
        """
        chain: list[str] = []
        while name:
            if name not in self.runs:
                raise UserError(f"study {self.name!r} has no run {name!r}{suggestion(name, self.runs)}")
            if name in chain:
                raise UserError(f"study {self.name!r}: run {name!r} starts from itself")
            chain.insert(0, name)
            name = self.runs[name].start
        return chain

    def settings(self, name: str) -> dict[str, Any]:
        """Key of a run's config to its value, the steps between evaluations among them."""
        every = {"eval.every": self.every} if self.every else {}
        return every | self.runs[name].settings

    def folder(self, name: str, seed: int) -> str:
        """Name of a run's folder, the same in every study that trains the same way: its config, a hash and its seed.

        The hash is of the configs and settings of the run and of those that lead to it. Left out are settings that say
        no more than where files lie and how they are read, and when a run was scored that others start from.
        """
        told = []
        for one in self.chain(name):
            without = PLACES if one == name else CHANGEABLE
            kept = {key: str(value) for key, value in self.settings(one).items() if not key.startswith(without)}
            told.append((self.runs[one].config, kept))
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
        words = re.sub(r"[^\w.]+", "-", self.runs[name].config).strip("-")
        return f"{words}-{digest}-seed{seed}"

    def path(self, root: str, name: str, seed: int) -> epath.Path:
        """Where a run lies, and of every other study under ``root`` that has the same run."""
        return epath.Path(root) / "runs" / self.folder(name, seed)

    def command(self, root: str, name: str, seed: int) -> list[str]:
        """The words of the command that makes a run, in a folder under ``root``."""
        run, keys = self.runs[name], {"seed": str(seed)}
        if run.start:
            keys["train.init"] = str(self.path(root, run.start, seed))
        keys |= self.settings(name)
        flags = [f"--config.{key}={value}" for key, value in keys.items()]
        return ["nightjax", "train", f"--config={run.config}", *flags, f"--workdir={self.path(root, name, seed)}"]

    def with_arguments(self, arguments: str) -> "Study":
        """The study with arguments added to every run's config."""
        more = lambda config: config + ("," if ":" in config else ":") + arguments if arguments else config
        runs = {name: dataclasses.replace(run, config=more(run.config)) for name, run in self.runs.items()}
        return dataclasses.replace(self, runs=runs)


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
    for run in study.runs:
        if not re.fullmatch(r"\w[\w.-]*", run):
            raise UserError(f"study {name!r}: run {run!r} must be a name of letters, digits, '_', '.' and '-'")
        study.chain(run)
    for pair in study.compare:
        for run in pair:
            study.chain(run)
    return study
