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
    "zoo": {"core", "zoo"},
    "data": {"core", "data"},
    "nightstreet": {"core", "data", "nightstreet"},
    "prepare": {"core", "data", "prepare"},
    "inference": {"core", "ops", "metrics", "inference", "data"},
    "report": {"core", "inference", "report"},
    "interop": {"core", "models", "ops", "interop"},
    "selection": {"core", "data", "interop", "metrics", "models", "selection", "zoo"},
    "methods": {"core", "ops", "models", "losses", "methods"},
    "run": {"core", "data", "methods", "interop"},
    "evaluate": {"core", "data", "losses", "metrics", "run", "zoo"},
    "submit": {"core", "data", "evaluate", "inference", "metrics", "run", "zoo"},
    "train": {"core", "data", "evaluate", "inference", "methods", "report", "run"},
    "api": {"core", "evaluate", "inference", "run", "train"},
    "main": {"core", "run", "train"},
    "predict": {"api", "core", "inference"},
    "export": {"api", "core", "inference", "interop"},
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
