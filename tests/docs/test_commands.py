"""Every command of the README, of the pages, and of the docstrings of configs and verbs names what exists."""

import ast
import re
import shlex

import pytest

from nightjax.cli import VERBS, find
from nightjax.core import cli
from nightjax.run import settings
from tests.helpers.places import ROOT

ELSEWHERE = {"add_a_backbone.md", "add_a_dataset.md", "add_a_method.md", "own_data.md"}
"""Pages whose commands need files that the page defines; tests of their own run those."""
PAGES = [
    ROOT / "README.md",
    ROOT / "nightjax" / "bundled" / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name not in ELSEWHERE),
    *sorted((ROOT / "tfds_builders").glob("*/README.md")),
]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
VERB_MODULES = sorted(ROOT / f"{module.replace('.', '/')}.py" for module, _ in VERBS.values())
MODULES = {module: verb for verb, (module, _) in VERBS.items()}
COMMAND = re.compile(r"^ +(?:nightjax +(\S+)|python -m (nightjax\.\w+))(?= |$)(.*)", re.M)


def text_of(path):
    return path.read_text() if path.suffix == ".md" else ast.get_docstring(ast.parse(path.read_text()))


def commands():
    """Where a command stands, its verb and its other words."""
    for path in [*PAGES, *CONFIGS, *VERB_MODULES]:
        text = text_of(path).replace("\\\n", " ")
        for verb, module, rest in COMMAND.findall(text):
            if "$" in rest:  # Of a shell's loop.
                continue
            yield pytest.param(
                verb or MODULES[module],
                shlex.split(rest, comments=True),
                id=f"{path.relative_to(ROOT)}: {verb or module}{rest[:60]}",
            )


class Parsed(Exception):
    """The flags were read."""


@pytest.mark.parametrize(("verb", "words"), list(commands()))
def test_a_command_names_what_exists(verb, words, monkeypatch):
    def parse(*args, read=cli.parse, **kwargs):
        """Refuses unknown flags, and stops before anything is done."""
        read(*args, **kwargs)
        raise Parsed

    for word in words:
        if word.startswith("--config="):
            overrides = dict(other[9:].split("=", 1) for other in words if other.startswith("--config."))
            settings.override(settings.load(word.partition("=")[2]), overrides)
    monkeypatch.setattr(cli, "parse", parse)
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed):
        find(verb).main([f"nightjax {verb}", *words])
