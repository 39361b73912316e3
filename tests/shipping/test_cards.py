"""What an export folder says of itself."""

import ast
import datetime

import pytest

from nightjax.shipping import cards, runners


@pytest.mark.parametrize("target", [*runners.RUNTIMES])
def test_run_py_is_short_and_needs_the_runtime_alone(target):
    text = runners.script(target)
    tree = ast.parse(text)
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {str(name).partition(".")[0].replace("_", "-") for name in names}
    assert packages - {"json", "pathlib", "sys", "numpy", "PIL"} == {runners.RUNTIMES[target].package}
    assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 120 and "@" not in text


def test_a_page_is_served_by_python_alone():
    tree = ast.parse(runners.script("web"))
    assert {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} == {
        "http.server",
        "os",
        "sys",
    }


def test_months():
    day = datetime.date.fromisoformat
    assert cards.months_later(day("2026-08-31"), 6) == day("2027-02-28")
    assert cards.months_later(day("2026-06-15"), 6) == day("2026-12-15")
    assert cards.months_later(day("2026-12-01"), 13) == day("2028-01-01")
