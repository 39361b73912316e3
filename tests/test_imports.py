"""Arrows point one way, files stay readable, and importing the package starts nothing."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tests.helpers.places import ROOT

PACKAGE = ROOT / "nightjax"
MODULES = sorted(PACKAGE.rglob("*.py"))

ALLOWED = {
    "core": {"core"},
    "ops": {"core", "ops"},
    "models": {"core", "ops", "models"},
    "losses": {"core", "ops", "losses"},
    "metrics": {"core", "ops", "metrics"},
    "data": {"core", "data"},
    "nightstreet": {"core", "data", "metrics", "nightstreet"},
    "prepare": {"core", "data", "prepare"},
    "inference": {"core", "data", "inference", "interop", "metrics", "models", "nightstreet", "ops"},
    "interop": {"core", "ops", "interop"},
    "methods": {"core", "ops", "models", "losses", "methods"},
    "zoo": {"core", "methods", "zoo"},
    "selection": {"core", "data", "inference", "interop", "metrics", "models", "selection", "zoo"},
    "run": {"core", "data", "interop", "methods", "metrics", "models", "run"},
    "report": {"core", "inference", "methods", "metrics", "report", "run"},
    "evaluator": {"core", "data", "losses", "metrics", "run", "zoo"},
    "train": {"core", "data", "evaluator", "methods", "report", "run"},
    "evaluate": {"core", "evaluator", "metrics", "run", "zoo"},
    "api": {"core", "evaluator", "inference", "run", "train", "zoo"},
    "main": {"core", "run", "train"},
    "predict": {"api", "core", "inference"},
    "submit": {"core", "data", "evaluator", "inference", "metrics", "run", "zoo"},
    "export": {"api", "core", "inference", "interop"},
    "list": {"core", "zoo"},
    "check": {"core", "data", "prepare"},
    "convert": {"core", "interop", "run"},
    "translate": {"core", "data", "inference", "prepare", "run"},
    "enhance": {"core", "inference", "prepare"},
    "pairs": {"core", "data", "prepare", "run"},
    "pseudo_label": {"api", "core", "inference", "selection"},
    "select": {"core", "selection"},
    "fid": {"core", "selection"},
    "match": {"core", "inference", "nightstreet", "run"},
    "table": {"core", "report"},
    "cli": {"core"},
    "__main__": {"cli"},
}
"""Part to the parts it may import."""


def part(module: str) -> str:
    names = module.split(".")[1:]
    return names[0] if names else "nightjax"


def imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    own = part(name)
    if own == "nightjax":
        return
    allowed = ALLOWED[own.partition(".")[0]]
    for imported in imports(path):
        if imported.startswith("nightjax."):
            target = part(imported)
            assert target in allowed or target.partition(".")[0] in allowed, f"{name} imports {imported}"


def test_files_can_be_read_in_one_sitting():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_tensorflow_or_torch_at_import(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {name.partition(".")[0] for name in names} & {"tensorflow", "torch", "torchvision"}


def test_data_does_not_know_jax():
    for path in [path for room in ("data", "prepare", "nightstreet") for path in (PACKAGE / room).rglob("*.py")]:
        assert not {name.partition(".")[0] for name in imports(path)} & {"jax", "flax"}, path


def test_no_test_and_no_library_file_imports_a_script():
    for path in [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]:
        assert not [name for name in imports(path) if name.partition(".")[0] == "scripts"], path


def test_import_touches_no_device_and_sets_no_flags():
    code = (
        "import os, sys; before = dict(os.environ); "
        "sys.modules['torch'] = None; "  # As if it were not installed: tensorboardX takes it where it is.
        "import nightjax, nightjax.api, nightjax.main, nightjax.predict; "
        "from jax._src import xla_bridge; "
        "assert not xla_bridge.backends_are_initialized(); "
        "assert 'tensorflow' not in sys.modules; "
        "changed = {k for k in os.environ if os.environ[k] != before.get(k)}; "
        "assert not {k for k in changed if 'XLA' in k or 'JAX' in k}, changed"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
