"""The commands that a reader is shown: in the README, on the pages, on top of configs and verbs."""

import ast
import re
import shlex
from collections.abc import Iterator

from nightjax.cli import VERBS
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


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """Where a command stands, its verb and its other words, in the order in which they are read."""
    for path in [*PAGES, *CONFIGS, *VERB_MODULES]:
        text = path.read_text() if path.suffix == ".md" else ast.get_docstring(ast.parse(path.read_text())) or ""
        for verb, module, rest in COMMAND.findall(text.replace("\\\n", " ")):
            if "$" not in rest:  # Of a shell's loop.
                yield str(path.relative_to(ROOT)), verb or MODULES[module], shlex.split(rest, comments=True)
