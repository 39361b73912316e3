# SPDX-License-Identifier: Apache-2.0
"""Finds config files: nightjax's own by name, anyone's by path."""

import pathlib

PACKAGE = pathlib.Path(__file__).parents[1]


def folder() -> pathlib.Path:
    """The folder of nightjax's own configs: ``nightjax/_configs`` of an installed wheel, ``configs`` of a clone."""
    installed = PACKAGE / "_configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """The names of nightjax's own configs, such as ``dsr_fpa``, sorted."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


def find(name: str) -> pathlib.Path | None:
    """The file of a config, or None if there is none.

    Args:
        name: the path of a Python file (``my/night.py``), or the name of one of nightjax's own configs (``dsr_fpa``).
            Where no file ``configs/dsr_fpa.py`` exists, this path means nightjax's own, so that the commands of the
            documentation work in any folder.
    """
    path = pathlib.Path(name)
    if path.suffix == ".py" and path.is_file():
        return path
    if path == pathlib.Path("configs", f"{path.stem}.py"):
        name = path.stem
    return folder() / f"{name}.py" if name in names() else None
