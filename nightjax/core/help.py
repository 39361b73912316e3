# SPDX-License-Identifier: Apache-2.0
"""Text for people on the command line: the help of a verb, and a resolved config as ``key = value`` lines."""

import ast
import inspect
import itertools
import pathlib
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

from nightjax.core import config_files

PLACEHOLDERS = {
    "int": "=N",
    "float": "=X",
    "bool": "",
    "comma separated list of strings": "=A,B",
    "string enum": "=NAME",
}
"""Type of a flag to what stands behind its name in the help; any other type takes a text."""

VALUE_WIDTH = 24
"""Columns of a value before its meaning; a longer value moves its own meaning."""


def verb_help(values: flags.FlagValues, program: str, about: str, required: Sequence[str] = (), words: str = "") -> str:
    """The help of one verb: what it does, usage, examples, required flags, all other flags.

    Args:
        values: the flags. A flag ``config`` that holds a config has the text of `config_help`.
        program: what the user calls, such as ``"nightjax predict"`` or the path of a script.
        about: the module's docstring: a sentence, then explanations and examples.
        required: names of the flags that must be given.
        words: what may follow the flags, such as ``"SET SET ..."``.
    """
    first, _, rest = textwrap.dedent(about).strip().partition("\n\n")
    given = values["config"].value if "config" in values else None
    shown = [name for name in required if name != "config" or given is None]
    others = [name for name in values if values[name].name == name and name not in required]
    others = sorted(name for name in others if not name.startswith("config.") and (name != "config" or given is None))
    needed = [f"--{name}=..." for name in required]
    parts = [first, " ".join(filter(None, ["usage:", command_of(program), *needed, words, "[flags]"])), rest]
    if shown:
        parts.append("required flags:\n" + _flag_lines(values, shown))
    parts.append("flags:\n" + _flag_lines(values, others))
    if given is not None:
        parts.append(f"config {values['config'].help}")
    return "\n\n".join(part.strip("\n") for part in parts if part)


def config_help(
    path: str,
    function: Callable[..., Any],
    config: ml_collections.ConfigDict,
    meanings: Mapping[str, str],
) -> str:
    """A config's docstring, its arguments with types and defaults, and its keys with values and meanings.

    Args:
        path: as ``--config`` takes it.
        function: ``get_config`` of the file.
        config: what it returned, complete.
        meanings: of the config's keys.
    """
    name = path.partition(":")[0]
    parts = [path, config_docstring(path)]
    if arguments := argument_lines(function):
        parts.append(f"arguments, as in --config={name}:KEY=VALUE,KEY=VALUE\n{arguments}")
    parts.append(f"keys, as in --config.KEY=VALUE\n\n{format_config(config, meanings)}")
    return "\n\n".join(filter(None, parts))


def argument_lines(function: Callable[..., Any]) -> str:
    """The arguments of a ``get_config``, a line each: name, default, and which values it takes."""
    hints = typing.get_type_hints(function)
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        default = int(parameter.default) if isinstance(parameter.default, bool) else parameter.default
        value = "" if default in (None, "", parameter.empty) else f"={default}"
        rows.append((f"{name}{value}", _kind(hints.get(name, str))))
    width = max((len(head) for head, _ in rows), default=0)
    return "\n".join(f"  {head:{width}}  {kind}" for head, kind in rows)


def _kind(hint: Any) -> str:
    """Which values an argument takes, in words."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(str(option) for option in typing.get_args(hint) if option != "")
    return {bool: "0|1", int: "whole number", float: "number"}.get(hint, "text")


def format_config(config: ml_collections.ConfigDict, meanings: Mapping[str, str] | None = None) -> str:
    """Every key of a config as ``key = value``, sorted by section, a blank line between sections.

    Keys are dotted, so each line is also what a flag ``--config.KEY=VALUE`` would set.

    Args:
        config: the config.
        meanings: what stands behind each line as ``# meaning``, by key.
    """
    rows = sorted(_flat(config.to_dict()), key=lambda row: ("." in row[0], row[0]))
    blocks = []
    for _, group in itertools.groupby(rows, key=lambda row: row[0].partition(".")[0] if "." in row[0] else ""):
        block = list(group)
        width = max(len(key) for key, _ in block)
        lines = [f"{key:{width}} = {value!r}" for key, value in block]
        if meanings is not None:
            column = min(max(map(len, lines)), width + VALUE_WIDTH)
            lines = [f"{line:{column}}  # {meanings.get(key, '')}" for line, (key, _) in zip(lines, block, strict=True)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def config_docstring(path: str) -> str:
    """The docstring of a config file given as ``--config`` takes it; empty if there is none to read."""
    file = config_files.find(path.partition(":")[0])
    try:
        return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file else None) or ""
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def command_of(argv0: str) -> str:
    """How to call the program again: ``python -m nightjax.predict`` for the path of that module."""
    path = pathlib.PurePath(argv0)
    if path.suffix != ".py":
        return argv0
    room = path.parent.name
    return f"python -m nightjax.{path.stem}" if room == "nightjax" else f"python {room}/{path.name}"


def _flag_lines(values: flags.FlagValues, names: Sequence[str]) -> str:
    heads = {name: f"--{name}{PLACEHOLDERS.get(values[name].flag_type(), '=TEXT')}" for name in names}
    column = max(map(len, heads.values())) + 4
    width = max(shutil.get_terminal_size((100, 24)).columns, column + 40)
    lines = []
    for name, head in heads.items():
        wrapped = textwrap.wrap(_description(values[name]), width - column, break_on_hyphens=False) or [""]
        lines += [f"  {head:{column - 2}}{wrapped[0]}", *(" " * column + line for line in wrapped[1:])]
    return "\n".join(lines)


def _description(flag: flags.Flag) -> str:
    text, notes = flag.help, []
    if choices := getattr(flag.parser, "enum_values", None):
        text = text.removeprefix(f"<{'|'.join(choices)}>: ")  # absl's own form of the same note.
        notes.append(f"one of {', '.join(choices)}")
    if flag.default not in (None, "", [], False):
        default = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
        notes.append(f"default: {default}")
    return text + (f" ({'; '.join(notes)})" if notes else "")
