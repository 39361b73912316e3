# SPDX-License-Identifier: Apache-2.0
"""What there is to choose from: methods, named models, benchmarks, evaluation sets, configs and studies, by name."""

import ast
import inspect
from collections.abc import Mapping, Sequence

from nightjax.core import config_files, studies
from nightjax.core.errors import choose
from nightjax.methods import METHODS
from nightjax.zoo.benchmarks import BENCHMARKS, EVAL_SETS
from nightjax.zoo.models import MODELS


def list_methods() -> dict[str, str]:
    """Name of every method to what it is, by the docstring of its module."""
    return {name: _first_line(inspect.getdoc(inspect.getmodule(cls))) for name, cls in METHODS.items()}


def list_models() -> dict[str, str]:
    """Name of every network (``model=``) to its settings."""
    return {name: _settings(section) for name, section in MODELS.items()}


def list_benchmarks() -> dict[str, str]:
    """Name of every benchmark (``data=``) to the data sets it trains on and the sets it scores."""
    lines = {}
    for name, section in BENCHMARKS.items():
        streams = (f"{domain} {stream['dataset']}" for domain, stream in section["streams"].items())
        lines[name] = f"{', '.join(streams)}; scored on {', '.join(section['eval'])}"
    return lines


def list_sets() -> dict[str, str]:
    """Name of every evaluation set (``--sets=``) to its data set, split and protocol."""
    lines = {}
    for name, section in EVAL_SETS.items():
        protocol = {key: value for key, value in section.items() if key not in ("dataset", "split")}
        lines[name] = f"{section['dataset']}@{section['split']}" + (f"; {_settings(protocol)}" if protocol else "")
    return lines


def list_configs() -> dict[str, str]:
    """Name of every config (``--config=``) to what it trains."""
    files = {name: config_files.folder() / f"{name}.py" for name in config_files.names()}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    return {name: _first_line(ast.get_docstring(ast.parse(text))) for name, text in texts.items()}


def list_studies() -> dict[str, str]:
    """Name of every study (``--study=``) to its question."""
    return {name: studies.read(name).question for name in studies.names()}


KINDS = {
    "methods": list_methods,
    "models": list_models,
    "benchmarks": list_benchmarks,
    "sets": list_sets,
    "configs": list_configs,
    "studies": list_studies,
}
"""What can be listed, to the function that lists it."""


def listing(kinds: Sequence[str] = ()) -> str:
    """One or more of `KINDS` as text, a line each; all of them, with their titles, by default.

    Raises:
        UserError: there is no such kind.
    """
    blocks = []
    for kind in kinds or KINDS:
        rows = choose(KINDS, kind, "list")()
        width = max(map(len, rows))
        lines = [f"{name:{width}}  {about}" for name, about in rows.items()]
        blocks.append("\n".join(lines if len(kinds) == 1 else [f"{kind}:", *(f"  {line}" for line in lines)]))
    return "\n\n".join(blocks)


def _settings(section: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={str(value).replace(' ', '')}" for key, value in section.items())


def _first_line(text: str | None) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = " ".join((text or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".:")
