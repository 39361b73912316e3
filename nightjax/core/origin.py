# SPDX-License-Identifier: Apache-2.0
"""What a run was started with: command, version, revision, date and devices, a record for each start."""

import datetime
import functools
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

import jax
from etils import epath

import nightjax
from nightjax.core import files
from nightjax.core.errors import UserError
from nightjax.core.help import command_of

FILE = "origin.json"
"""File of a run folder with one record for each start, the first one first."""


def record(workdir: epath.Path) -> None:
    """Adds a record of this process to the run folder."""
    files.write_whole(workdir / FILE, json.dumps([*read(workdir), of_process()], indent=1))


def read(workdir: epath.Path) -> list[dict[str, Any]]:
    """The records of a run folder; none where the file is missing or damaged."""
    try:
        found = files.read_json(workdir / FILE, list, "delete it") if (workdir / FILE).exists() else []
    except UserError:
        return []
    return [one for one in found if isinstance(one, dict)]


def of_process() -> dict[str, Any]:
    """Command, versions, revision of the clone, UTC date, and devices by number and kind."""
    kinds = [device.device_kind for device in jax.devices()]
    return {
        "command": f"{command_of(sys.argv[0])} {shlex.join(sys.argv[1:])}".strip(),
        "nightjax": nightjax.__version__,
        "revision": revision(),
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "devices": ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)),
        "processes": jax.process_count(),
    }


@functools.cache
def revision() -> str:
    """The git revision of the clone that nightjax runs from, with "-dirty" if files differ; "" elsewhere."""
    folder = pathlib.Path(nightjax.__file__).parents[1]
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
