"""Where the repository and, if there are any, real data lie."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[2]

REAL_DATA = pathlib.Path(os.environ.get("NIGHTJAX_SHARED_DATA", ROOT.parent / "shared" / "data"))
"""Folder with ``camvid/``, ``bdd100k/``, ``dark_zurich_pair/`` or ``lists/``; tests of what it lacks skip."""
