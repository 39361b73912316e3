"""Text for people on the command line: the help of a verb, and a resolved config as ``key = value`` lines."""

import ast
import itertools
import pathlib
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

PLACEHOLDERS = {
    "int": "=N",
    "float": "=X",
    "bool": "",
    "comma separated list of strings": "=A,B",
    "string enum": "=NAME",
}
"""Type of a flag to what stands behind its name in the help; any other type takes a text."""


def verb_help(values: flags.FlagValues, program: str, about: str, required: Sequence[str] = (), words: str = "") -> str:
    """The help of one verb: what it does, usage, examples, required flags, all other flags.

    Args:
        values: the flags. A flag ``config`` that holds a config is shown by its docstring and its keys.
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
    parts = [first, " ".join(filter(None, ["usage:", _program(program), *needed, words, "[flags]"])), rest]
    if shown:
        parts.append("required flags:\n" + _flag_lines(values, shown))
    parts.append("flags:\n" + _flag_lines(values, others))
    if isinstance(given, ml_collections.ConfigDict):
        parts += [f"config {values['config'].help}", format_config(given)]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def format_config(config: ml_collections.ConfigDict) -> str:
    """Every key of a config as ``key = value``, sorted by section, a blank line between sections.

    Keys are dotted, so each line is also what a flag ``--config.KEY=VALUE`` would set.
    """
    rows = sorted(_flat(config.to_dict()), key=lambda row: ("." in row[0], row[0]))
    blocks = []
    for _, group in itertools.groupby(rows, key=lambda row: row[0].partition(".")[0] if "." in row[0] else ""):
        block = list(group)
        width = max(len(key) for key, _ in block)
        blocks.append("\n".join(f"{key:{width}} = {value!r}" for key, value in block))
    return "\n\n".join(blocks)


def config_docstring(path: str) -> str:
    """The docstring of a config file given as ``--config`` takes it; empty if there is none to read."""
    file = pathlib.Path(path.partition(":")[0])
    try:
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _program(argv0: str) -> str:
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
