"""The Colab notebook is valid, and its code runs."""

import ast
import builtins
import json
import os
import subprocess
import sys

import pytest

from tests.helpers.places import ROOT

NOTEBOOK = ROOT / "scripts" / "nightjax_colab.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text())


def code_cells(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_is_a_short_notebook_of_format_4_without_outputs(notebook):
    assert notebook["nbformat"] == 4 and len(notebook["cells"]) < 15
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and isinstance(cell["source"], list)
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


def test_code_parses_and_every_name_is_defined(notebook):
    known = set(dir(builtins))
    for source in code_cells(notebook):
        nodes = list(ast.walk(ast.parse(source)))
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
        used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert used <= known, used - known


@pytest.mark.slow
def test_code_runs(notebook, tmp_path):
    source = "\n".join(code_cells(notebook)).replace("STEPS = 60", "STEPS = 4")
    environment = os.environ | {"PYTHONPATH": str(NOTEBOOK.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs" / "colab" / "report.html").exists()
    assert "mean confidence" in done.stdout
