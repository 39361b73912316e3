# SPDX-License-Identifier: Apache-2.0
"""What the docs site adds to the pages of ``docs/``: the README as its home, other pages of the repository, and math.

A link to a file of the repository that is a page of the site becomes a link to that page. A link to any other file of
the repository keeps its text alone, since the site is read without the repository beside it.
"""

import pathlib
import posixpath
import re
from html import escape
from typing import Any

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "nightjax/bundled/README.md": "bundled.md",
    **{
        str(path.relative_to(ROOT)): f"datasets/{path.parent.name}.md"
        for path in sorted(ROOT.glob("tfds_builders/*/README.md"))
    },
}
"""File of the repository to the page it becomes."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
SHIM = "https://unpkg.com/iframe-worker/shim"
"""Where the theme would fetch what lets the search run from disk."""

FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Makes fences of the language ``math`` formulas, which need neither scripts nor fonts."""
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [
        {"name": "math", "class": "math", "format": formula}
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere in the repository."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Points links at the pages of the site."""
    sources = {target: source for source, target in PAGES.items()}
    own = page.file.src_uri
    source = sources.get(own, f"docs/{own}")

    def point(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        target, hash_, anchor = link.partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        found = PAGES.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if found is None:
            return text if (ROOT / file).exists() else match[0]
        return f"{mark}[{text}]({posixpath.relpath(found, posixpath.dirname(own) or '.')}{hash_}{anchor})"

    kept, end = [], 0
    for fence in FENCE.finditer(markdown):
        kept += [LINK.sub(point, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*kept, LINK.sub(point, markdown[end:])])


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Takes the search's helper from the site."""
    return output.replace(SHIM, posixpath.relpath("site/worker.js", posixpath.dirname(page.file.dest_uri) or "."))


def formula(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **_: Any) -> str:
    """MathML of a LaTeX formula, a line each."""
    del language, options, md
    lines = [latex2mathml.converter.convert(line, display="block") for line in source.strip().split("\n\n")]
    return (
        f'<div class="{css_class}" role="img" aria-label="{escape(source.strip(), quote=True)}">{"".join(lines)}</div>'
    )
