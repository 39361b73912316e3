"""Config files are found by name and by path, whatever else Python could import."""

import os
import pathlib
import subprocess
import sys

import pytest

from nightjax.core import config as configs
from nightjax.core import config_files
from nightjax.core.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]

OWN = "import ml_collections\ndef get_config(arg: str = ''):\n    return ml_collections.ConfigDict({'mine': arg})\n"


def test_own_configs_have_names():
    assert {"supervised", "dsr_fpa", "unit"} <= set(config_files.names())
    assert not [name for name in config_files.names() if name.startswith("_")]


@pytest.mark.parametrize("name", ["dsr_fpa", "configs/dsr_fpa.py"])
def test_own_config_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find(name).samefile(ROOT / "configs/dsr_fpa.py")


def test_a_file_comes_before_our_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/dsr_fpa.py").write_text(OWN)
    assert configs.load("configs/dsr_fpa.py:arg=x").mine == "x"
    assert config_files.find("dsr_fpa").samefile(ROOT / "configs/dsr_fpa.py")


@pytest.mark.parametrize(
    "name", ["dsr_fpa.py", "my/dsr_fpa.py", "configs/dsr_fpa", "a/configs/dsr_fpa.py", "_base", ""]
)
def test_other_paths_do_not_mean_our_own(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find(name) is None


def test_misspelled_name():
    with pytest.raises(UserError, match="dsr_fap does not exist.*did you mean 'dsr_fpa'"):
        configs.load("dsr_fap:steps=3")


def test_installed_wheel(tmp_path, monkeypatch):
    """In site-packages the files lie inside the package, and a neighbor called ``configs`` is somebody else's."""
    package = tmp_path / "site-packages/nightjax"
    for folder in (package / "_configs", package.parent / "configs"):
        folder.mkdir(parents=True)
        (folder / "night.py").write_text(OWN)
    monkeypatch.setattr(config_files, "PACKAGE", package)
    assert config_files.find("night") == package / "_configs/night.py"


def test_package_called_configs_changes_nothing(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/__init__.py").write_text("raise RuntimeError('a user\\'s own package was imported')\n")
    code = "from nightjax.core import config; assert config.load('supervised:data=nightstreet_tiny').method"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})
