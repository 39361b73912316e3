"""Arrows point one way, files stay readable, and importing the package starts nothing."""

import ast
import graphlib
import pathlib
import re
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
    "prepare": {"core", "data", "prepare"},
    "nightstreet": {"core", "data", "metrics", "nightstreet"},
    "interop": {"core", "interop"},
    "methods": {"core", "ops", "models", "losses", "methods"},
    "zoo": {"core", "zoo"},
    "zoo.listing": {"core", "methods", "zoo"},
    "inference": {"core", "data", "inference", "interop", "metrics", "models", "nightstreet", "ops"},
    "shipping": {"core", "data", "inference", "metrics", "ops", "shipping"},
    "selection": {"core", "data", "inference", "interop", "metrics", "models", "selection", "zoo"},
    "report": {"core", "inference", "methods", "metrics", "report"},
    "run": {"bundled", "core", "data", "interop", "methods", "metrics", "models", "run"},
    "evaluator": {"core", "data", "losses", "metrics", "run", "zoo"},
    "train": {"core", "data", "evaluator", "methods", "report", "run"},
    "planning": {"core", "methods", "run", "train", "zoo"},
    "bundled": set(),
    "api": {"bundled", "core", "evaluator", "inference", "run", "train", "zoo", "zoo.listing"},
}
"""Part to the parts it may import; arrows go one way.

Methods are made of networks and losses, a run builds a method, the loops drive a run, and the verbs, at the edge, call
the loops. The tables of ``zoo`` are data; only what lists them knows the methods too.
"""

VERBS = {
    "main": {"core", "run", "train"},
    "evaluate": {"bundled", "core", "evaluator", "metrics", "run", "zoo"},
    "calibrate": {"api", "bundled", "core", "data", "inference", "metrics", "run", "zoo"},
    "predict": {"api", "bundled", "core", "inference"},
    "demo": {"api", "bundled", "core", "inference"},
    "submit": {"core", "data", "evaluator", "inference", "metrics", "run", "zoo"},
    "export": {"api", "core", "inference", "shipping"},
    "bench": {"api", "core", "inference", "methods", "run", "shipping"},
    "plan": {"core", "planning", "run", "zoo"},
    "list": {"core", "zoo.listing"},
    "check": {"core", "data", "prepare"},
    "convert": {"core", "interop", "run"},
    "translate": {"core", "data", "inference", "prepare", "run"},
    "enhance": {"core", "inference", "prepare"},
    "pairs": {"core", "data", "prepare", "run"},
    "pseudo_label": {"api", "core", "inference", "selection"},
    "select": {"core", "selection"},
    "fid": {"core", "selection"},
    "match": {"core", "inference", "nightstreet", "run"},
    "study": {"core", "report", "run"},
    "table": {"core", "report"},
    "cli": {"core"},
    "__main__": {"cli"},
}
"""Verb to the parts it may import; nothing but `__main__` imports a verb."""


def part(module: str) -> str:
    """The part that a module, or a name in it, belongs to; ``""`` for the package itself."""
    names = module.split(".")[1:]
    two = ".".join(names[:2])
    return two if two in ALLOWED else (names or [""])[0]


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
    if not part(name):
        return
    allowed = (ALLOWED | VERBS)[part(name)]
    for imported in imports(path):
        if imported.startswith("nightjax."):
            assert part(imported) in allowed, f"{name} imports {imported}"


def test_the_parts_have_an_order():
    """What may import what has no circle, so there is a first part, and the verbs come last."""
    every = ALLOWED | VERBS
    order = list(graphlib.TopologicalSorter({name: parts - {name} for name, parts in every.items()}).static_order())
    assert order[0] == "core" and set(order) == set(every)
    chain = ("core", "ops", "models", "methods", "run", "evaluator", "train", "api")
    assert [name for name in order if name in chain] == list(chain)
    assert not [name for name, parts in every.items() if parts & set(VERBS) - {name} and name != "__main__"]


def test_every_part_is_there():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {path.stem for path in PACKAGE.glob("*.py")}
    assert {name.partition(".")[0] for name in ALLOWED | VERBS} == rooms - {"__init__"}


def test_the_library_does_not_know_who_builds_its_data_sets():
    """They announce themselves by an entry point, so that anyone's builders are as good as ours."""
    for path in MODULES:
        assert "tfds_builders" not in path.read_text(), path


def test_configs_import_the_library_alone():
    for path in (ROOT / "configs").glob("*.py"):
        assert {name.partition(".")[0] for name in imports(path)} <= {
            "dataclasses",
            "ml_collections",
            "nightjax",
            "numpy",
            "typing",
        }, path


@pytest.mark.parametrize("path", [*PACKAGE.glob("*.py"), *(PACKAGE / "run").glob("*.py")], ids=lambda p: p.stem)
def test_loops_and_verbs_ask_a_method_by_its_protocol(path):
    """Not by ``getattr``, ``hasattr``, ``isinstance`` or ``type``: what they need is written in `core.method`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            asked = ast.unparse(node.args[0])
            if node.func.id in ("getattr", "hasattr", "isinstance", "type", "callable", "vars"):
                assert not re.search(r"\bmethod$|\bmethod\b(?!\.)", asked), (
                    f"{path.name}:{node.lineno}: {ast.unparse(node)}"
                )


def test_files_can_be_read_in_one_sitting():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


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
