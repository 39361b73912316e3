"""The notebooks are valid, and their code runs."""

import ast
import builtins
import json
import os
import re
import subprocess
import sys

import pytest

from nightjax.run import settings
from tests.helpers.places import ROOT

NOTEBOOKS = sorted((ROOT / "scripts").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text())


def code_cells(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_is_a_short_notebook_of_format_4_without_outputs(notebook):
    assert notebook["nbformat"] == 4 and len(notebook["cells"]) < 20
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
    """With a tenth of the steps; warnings and rules about settings are the same."""
    source = "\n".join(code_cells(notebook)).replace("STEPS = 60", "STEPS = 6")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = tmp_path.glob("runs/*/report.html")
    assert report.stat().st_size > 10_000 and "mIoU" in done.stdout


@pytest.mark.slow
def test_runs_in_a_kernel_of_jupyter(notebook, tmp_path, monkeypatch):
    """As Colab runs it: cell by cell, with what the cells show. Needs the extra dev."""
    nbclient, nbformat, _ = (
        pytest.importorskip(name, reason="needs the dev extra") for name in ("nbclient", "nbformat", "ipykernel")
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = json.dumps(notebook).replace("STEPS = 60", "STEPS = 6")
    resources = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(nbformat.reads(text, 4), timeout=900, resources=resources).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_the_first_training_cell_asks_for_steps_that_fit():
    """As written, which the long test shortens: the settings of the notebook make a run."""
    (colab,) = [path for path in NOTEBOOKS if path.stem == "nightjax_colab"]
    source = "\n".join(code_cells(json.loads(colab.read_text())))
    (steps,) = re.findall(r"^STEPS = (\d+)$", source, re.M)
    (name,) = re.findall(r'get_config\(f"([^"]+)"', source)
    settings.check(settings.load(name.replace("{STEPS}", steps)))
